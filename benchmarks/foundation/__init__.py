"""The foundation study."""
