"""rekindle."""
