"""From the files of a user to batches of token ids: reading, splitting, encoding, batching."""
