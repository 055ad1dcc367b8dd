"""Teachers from elsewhere, as policies that can be asked inside a compiled program."""
