"""NEFTune: noise on the input embeddings (Jain et al. 2023, Noisy Embeddings Improve Instruction Finetuning)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.data.examples import Micro
from tunelab.regularize.per_sequence import per_sequence


@contextmanager
def noisy_embeddings(model: PreTrainedModel, alpha: float, micro: Micro) -> Iterator[None]:
    """Within this block each embedding gets uniform noise of up to alpha / sqrt(L x H), L being its sequence's length.

    Args:
        model: In training mode; in evaluation mode nothing is added.
        alpha: Size of the noise; the paper takes 5 to 15.
        micro: What is about to pass through.
    """

    def add(module: nn.Module, args: tuple[Tensor, ...], embedded: Tensor) -> Tensor | None:
        if not module.training:
            return None
        size = alpha / (micro.lengths * embedded.shape[-1]).sqrt()
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * per_sequence(size, micro).to(embedded.dtype)

    handle = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
