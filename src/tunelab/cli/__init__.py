"""The command line: `python train.py`, `tunelab COMMAND`, and the help that both print."""
