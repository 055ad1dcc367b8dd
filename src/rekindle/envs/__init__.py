"""Worlds: the base contract, wrappers, conformance checks, and one folder per world."""
