"""The doors study."""
