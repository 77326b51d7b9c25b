"""Statistics of runs and searches, importance and effects of settings, diagnosis: pure, read by reports and
commands.
"""
