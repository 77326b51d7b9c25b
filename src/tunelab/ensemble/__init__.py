"""Several trained models as one: by their predictions, or by their weights."""
