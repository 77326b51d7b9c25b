"""Questions put to the very model, because no list of families stays complete: recurrent layers, alibi, capped scores
and position tables all break a layout in silence.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunelab.data.batching import lay_flat
from tunelab.data.examples import IGNORE, Example
from tunelab.models.document_attention import causal_inputs, on_device

FAULTS = (RuntimeError, IndexError, TypeError, ValueError, AttributeError, AssertionError, ImportError)
WINDOWS = ("sliding_window", "attention_chunk_size", "local_attention", "window_size")  # in configs and in layers
FIRST, OTHER, SECOND = [3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [2, 7, 1, 8, 2, 8, 1, 8, 2]  # documents; any tokens do


def slack(model: PreTrainedModel) -> float:
    """How far logits may differ by rounding, as a share of their spread; leaks measured from 6e-2 up."""
    return 5e-2 if torch.is_autocast_enabled(model.device.type) else 1e-4


@torch.no_grad()
def agree(model: PreTrainedModel, one: Callable[[], Tensor], other: Callable[[], Tensor], *, part: float = 1.0) -> bool:
    """Whether two ways to the same logits agree on this very model; an error of either counts as no.

    Args:
        model: Asked without dropout.
        one: The first way.
        other: The second way.
        part: Share of the usual slack, for ways that should round alike.
    """
    training = model.training
    model.eval()
    try:
        left, right = one().float(), other().float()
        near = left.shape == right.shape and (left - right).abs().max() <= part * slack(model) * left.std()
        return bool(near)
    except FAULTS:
        return False
    finally:
        model.train(training)


def takes_flat_rows(model: PreTrainedModel, attention: str) -> bool:
    """Switch the model to `attention` if flat rows then give the logits of their documents alone.

    Windows are narrowed for the question, so that the documents are longer than what a position sees.

    Returns:
        Whether the model now takes flat rows; if not, it is left as it was.
    """
    before = model.config._attn_implementation

    def logits(documents: Sequence[list[int]], attention: str) -> Tensor:
        set_attention(model, attention)
        row = lay_flat([Example(ids, [IGNORE] * len(ids), 0, 0) for ids in documents])
        found: Tensor = model(**causal_inputs(on_device(row, model.device))).logits
        return found

    def alone() -> Tensor:
        return torch.cat([logits([ids], before) for ids in (FIRST, SECOND)], 1)

    def second(first: list[int]) -> Tensor:
        return logits([first, SECOND], attention)[:, len(first) :]

    with narrow_windows(model):
        exact = agree(model, alone, lambda: logits([FIRST, SECOND], attention)) and agree(
            model, lambda: second(FIRST), lambda: second(OTHER), part=0.1
        )
    set_attention(model, attention if exact else before)
    return exact


@torch.no_grad()
def sees_ahead(model: PreTrainedModel) -> bool:
    """Whether a position notices the token after it.

    Families of encoders load as causal models and keep looking both ways: their loss falls to nothing, because what
    is to be predicted is in plain sight, and they cannot write a word.
    """
    training, width = model.training, int(cast(Tensor, model.get_input_embeddings().weight).shape[0])
    rows = torch.tensor([FIRST, [*FIRST[:-1], OTHER[-1]]], device=model.device) % width
    model.eval()
    try:
        one, other = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
    finally:
        model.train(training)
    return bool((one - other).abs().max() > slack(model) * one.std())


def set_attention(model: PreTrainedModel, attention: str) -> None:
    """Switch the attention of a model.

    Raises:
        ValueError: If the model is written for one attention only, or refuses this one.
    """
    reports = logging.getLogger("transformers.modeling_utils")
    level = reports.level
    reports.setLevel(logging.ERROR)  # it warns and goes on with the old one; below that is an error
    try:
        model.set_attn_implementation(attention)
    finally:
        reports.setLevel(level)
    if model.config._attn_implementation != attention:
        raise ValueError(f"{model.config.model_type} cannot change its attention")


@contextmanager
def narrow_windows(model: PreTrainedModel, widest: int = 4) -> Iterator[None]:
    """Within this block no position looks back further than `widest` tokens, where the model has windows at all."""
    owners = [vars(owner) for owner in (model.config, model.config.get_text_config(), *model.modules())]
    found = [
        (owner, name, owner[name])
        for owner in owners
        for name in WINDOWS
        if isinstance(owner.get(name), int) and owner[name] > widest
    ]
    largest = max((value for *_, value in found), default=widest)
    for owner, name, value in found:
        owner[name] = max(1, value * widest // largest)  # in proportion: some layers keep half of what the config says
    try:
        yield
    finally:
        for owner, name, value in found:
            owner[name] = value


def why_untrainable(model: PreTrainedModel) -> str | None:
    """Why no gradient comes out of the model as it stands: some kernels know no dropout, or no backward pass here."""
    training, kept = model.training, [p.grad for p in model.parameters()]
    model.train()
    model.zero_grad(set_to_none=True)  # else what is kept would be added to
    try:
        row = on_device(lay_flat([Example(FIRST, FIRST, 4, 0), Example(SECOND, SECOND, 8, 0)]), model.device)
        model(**causal_inputs(row)).logits.float().sum().backward()
    except FAULTS as fault:
        return (str(fault).strip() or type(fault).__name__).splitlines()[0]
    finally:
        model.train(training)
        for parameter, grad in zip(model.parameters(), kept, strict=True):
            parameter.grad = grad
    return None
