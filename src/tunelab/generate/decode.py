"""Greedy answers for a batch of prompts.

Shape letters: B prompts, T tokens.
"""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from tunelab.models.architecture import context_limit
from tunelab.models.document_attention import PlainAttention


@torch.no_grad()
def greedy(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, stop: Sequence[int], max_new_tokens: int
) -> list[list[int]]:
    """Continue each prompt with its most likely tokens.

    Prompts are padded on the left and masked, so an answer depends on its own prompt only.

    Args:
        model: A causal language model.
        prompts: Token ids, B prompts; the oldest tokens of one that leaves no room for an answer are cut.
        stop: Ids that end an answer.
        max_new_tokens: Longest answer, in tokens.

    Returns:
        The new tokens of each prompt, without the token that ended it.
    """
    limit = context_limit(model.config)
    new = max_new_tokens if limit is None else min(max_new_tokens, max(1, limit // 2))
    kept = [list(prompt if limit is None else prompt[-(limit - new) :]) for prompt in prompts]
    width, pad = max(map(len, kept)), stop[0]
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in kept], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in kept], device=model.device)
    settings = GenerationConfig(
        max_new_tokens=new, do_sample=False, eos_token_id=list(stop), pad_token_id=pad, use_cache=True
    )
    training = model.training
    model.eval()
    with PlainAttention(model):
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)  # type: ignore[operator]
    model.train(training)
    return [until(answer, stop) for answer in found[:, width:].tolist()]


def until(ids: Sequence[int], stop: Sequence[int]) -> list[int]:
    """The ids before the first one that ends the answer."""
    ends = [place for place, token in enumerate(ids) if token in stop]
    return list(ids[: ends[0]] if ends else ids)
