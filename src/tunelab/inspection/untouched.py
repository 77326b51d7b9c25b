"""Trying things out on a model that must not notice: weights, modes and random numbers as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel


@contextmanager
def as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """Within this block a model may be trained; after it, nothing of that is left.

    Put back bit by bit: weights that learn, buffers, the type of them all, which weights learn, gradients (none), the
    training mode of each module, the attention it uses, and the generators of Python, NumPy and PyTorch.  It takes as
    much memory as the weights that learn.
    """
    kept: list[tuple[torch.Tensor, torch.Tensor]]
    kept = [(weight, weight.detach().clone()) for weight in model.parameters() if weight.requires_grad]
    kept += [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    learns = [(weight, weight.requires_grad) for weight in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    attention, kind = model.config._attn_implementation, model.dtype
    with every_generator():
        try:
            yield
        finally:
            if model.dtype != kind:  # trained in 64 bit
                model.to(kind)  # type: ignore[arg-type]  # transformers widens the signature
            with torch.no_grad():
                for tensor, before in kept:
                    tensor.copy_(before)
            for weight, before_that in learns:
                weight.requires_grad_(before_that)
                weight.grad = None
            for module, mode in modes:
                module.training = mode
            if model.config._attn_implementation != attention:
                model.set_attn_implementation(attention)


@contextmanager
def every_generator() -> Iterator[None]:
    """Within this block random numbers may be drawn and generators seeded; after it, all stand where they stood."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
