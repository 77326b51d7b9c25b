"""What is about to be trained: size, work, memory, rate and the health of the first signals, before any training."""
