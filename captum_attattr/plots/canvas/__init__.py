"""What all figures share: colours, layout, labels, lines, panels, token columns, pages and their assets."""
