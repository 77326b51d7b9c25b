"""The live page of a folder: its runs and searches as a table, their reports, curves of what is running; read-only."""
