"""Trackers: the curves file always, and W&B, TensorBoard or Trackio on request."""
