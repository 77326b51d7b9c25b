"""What holds a model back from learning its training data by heart; one method a file."""
