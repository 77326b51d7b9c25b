"""`find=`: a good learning rate, micro-batch or batch size, looked for on the very run instead of training it."""
