"""What to practise on, and when."""
