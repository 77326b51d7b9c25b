"""The trained model as Hugging Face files."""
