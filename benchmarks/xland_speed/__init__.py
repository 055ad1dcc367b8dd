"""How fast the world is, beside XLand-MiniGrid on the same work. See README.md."""
