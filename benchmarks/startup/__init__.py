"""The startup study."""
