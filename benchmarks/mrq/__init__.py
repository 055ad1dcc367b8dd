"""MR.Q beside its published curves."""
