"""Callbacks of training, one subject per module."""
