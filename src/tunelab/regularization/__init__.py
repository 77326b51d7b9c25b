"""Regularization: noise in the forward pass, penalties on the weights, averages of the weights."""
