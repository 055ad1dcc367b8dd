"""From a teacher to any student, then weaned (Agarwal et al. 2022, 2206.01626)."""
