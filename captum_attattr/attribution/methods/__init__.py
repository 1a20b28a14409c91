"""Other ways to score the edges of attention than integrating along a path: one file a method."""
