"""Tiny random models and tokenizers for tests of heads."""

from support.sequence_models import make_model, make_tokenizer

__all__ = ["make_model", "make_tokenizer"]
