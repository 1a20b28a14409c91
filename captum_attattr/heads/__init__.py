"""Importance of heads: scores, pruning curves, the effectiveness analysis, correlations."""
