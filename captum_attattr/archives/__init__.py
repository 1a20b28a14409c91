"""Explanations of a whole data set on disk."""
