"""Ways in: train.py, `tunelab COMMAND`, and the help that both print."""
