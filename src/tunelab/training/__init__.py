"""From checked settings to a trained, evaluated and recorded model."""
