"""One folder per learning algorithm. Agents never import each other."""
