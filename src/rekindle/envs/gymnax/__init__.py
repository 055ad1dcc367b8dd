"""Worlds of gymnax, MinAtar among them."""
