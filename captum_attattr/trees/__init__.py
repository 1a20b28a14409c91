"""The attribution tree: the algorithm, and its files."""
