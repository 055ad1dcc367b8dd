"""XLand-MiniGrid's world, transition for transition; docs/minigrid.md is the rulebook."""
