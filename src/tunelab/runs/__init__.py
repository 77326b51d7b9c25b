"""The run directory and everything that is recorded in it."""
