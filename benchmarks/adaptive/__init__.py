"""The experiments that show what each part of the adaptive agent is good for."""
