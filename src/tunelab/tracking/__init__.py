"""Loggers of a run: metrics.csv always, and W&B, TensorBoard or Trackio on request."""
