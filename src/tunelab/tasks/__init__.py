"""Tasks: what a model learns, with its head, encoding, loss, metrics and predictions; one module per task."""
