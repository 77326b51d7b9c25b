"""Optimisation: optimizers, parameter groups and learning-rate schedules."""
