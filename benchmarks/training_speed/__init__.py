"""Steps per second of whole training, beside what others offer."""
