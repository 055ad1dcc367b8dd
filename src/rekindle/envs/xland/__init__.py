"""XLand 2.0 on a grid: rooms, objects, goals, and production rules that may be hidden. See docs/xland.md."""
