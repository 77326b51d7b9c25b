"""Answers of a causal model: decoding, chat, and predictions for whole files."""
