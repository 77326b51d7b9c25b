"""Hyper-parameter search: suggest a configuration, train it, report its score.  One engine behind every `-m`."""
