"""The model: its attention found, read and replaced; its heads masked and pruned. Only this room knows transformers."""
