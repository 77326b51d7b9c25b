"""The built-in small model and its data, written by this code."""
