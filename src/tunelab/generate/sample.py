"""Drawn answers in place of the likeliest ones: the choice of the next token, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_RULE: ContextVar[tuple[float, torch.Generator] | None] = ContextVar("rule", default=None)


@contextmanager
def sampled(temperature: float, seed: int) -> Iterator[None]:
    """Within this block `decode` draws each next token at a temperature; no other random number is touched.

    Args:
        temperature: Above 0: 1 draws from the model's own distribution, lower stays nearer to the likeliest token.
        seed: The same seed, model and prompts give the same answers.
    """
    token = _RULE.set((temperature, torch.Generator().manual_seed(seed)))
    try:
        yield
    finally:
        _RULE.reset(token)


def next_tokens(logits: Tensor) -> Tensor:
    """The next token of each row, (B, 1), from logits (B, V): the likeliest, or a drawn one inside `sampled`."""
    rule = _RULE.get()
    if rule is None:
        return logits.argmax(-1, keepdim=True)
    temperature, dice = rule
    chances = (logits.float() / temperature).softmax(-1).cpu()
    return torch.multinomial(chances, 1, generator=dice).to(logits.device)
