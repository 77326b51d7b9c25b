"""Runs, models, files and servers that several tests share."""
