"""Cross-validation: every row validated once, one training for each fold, one table."""
