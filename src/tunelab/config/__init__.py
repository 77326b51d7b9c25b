"""The settings of a run: schema, validation, instantiation."""
