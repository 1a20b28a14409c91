"""The model: its attention found, read and replaced, its heads masked and pruned.

Only this room knows how transformers builds its models: it alone imports transformers, and `families` has every
table of names.
"""
