"""The published AttAttr code's tasks, tables and files."""
