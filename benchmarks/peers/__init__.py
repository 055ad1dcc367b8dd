"""What others wrote, behind our own contracts."""
