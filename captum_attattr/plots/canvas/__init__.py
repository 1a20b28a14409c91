"""What all figures share: theme, labels, panels, token columns, pages and their assets."""
