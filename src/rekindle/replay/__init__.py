"""What was lived through, kept to be learnt from again."""
