"""What a run may be set to: schema, validation, instantiation."""
