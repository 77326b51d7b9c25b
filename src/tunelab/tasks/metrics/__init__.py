"""Metrics, one module per kind of prediction; each brings its direction."""
