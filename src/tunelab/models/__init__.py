"""Models: loading and building networks, adapters, unpadded attention, heads, freezing, muP."""
