"""The compounding study."""
