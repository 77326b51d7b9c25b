"""Search over hyper-parameters: ask, start a training, watch, tell.  One engine behind every `-m`."""
