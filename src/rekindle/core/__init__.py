"""Pure mathematics, spaces and shared types; imports nothing of ours."""
