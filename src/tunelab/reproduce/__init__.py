"""A run again, from its card alone, and whether the same came out."""
