"""Encoders, memories and heads; one family per file."""
