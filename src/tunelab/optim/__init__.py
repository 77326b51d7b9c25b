"""Optimisation: parameter groups and schedules.  Pure functions of plain values and parameters."""
