"""A real game from a teacher to its student: killed twice on the way, given away as one file in the end."""
