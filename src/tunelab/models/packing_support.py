"""Whether a model computes packed rows exactly, and the attention it needs for it.

The very model is probed, because no list of families stays complete: recurrent layers, alibi, capped scores and
position tables all break a layout without an error.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from tunelab.data.batching import pack_examples
from tunelab.data.examples import IGNORE, Example
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL, VARLEN_KERNEL, causal_inputs, micro_to_device

FLASH_KERNEL = "flash_attention_2"
FUSED_KERNELS = (FLASH_KERNEL, VARLEN_KERNEL, "flex_attention")  # may lack dropout, a backward pass, or this device


def varlen_available() -> bool:
    """Whether this PyTorch brings attention over documents of any length in one kernel."""
    return find_spec("torch.nn.attention.varlen") is not None


def available_kernels(
    device: str,
    *,
    half: bool,
    flash: Callable[[], bool] = is_flash_attn_2_available,
    varlen: Callable[[], bool] = varlen_available,
) -> list[str]:
    """Kernels for documents of any length that may run here, the fastest first; they compute in half precision.

    Args:
        device: Kind of device: "cuda", "cpu", ...
        half: Whether the run computes in half precision.
        flash: Tells whether the package flash-attn is installed.
        varlen: Tells whether PyTorch brings its own.
    """
    if device != "cuda" or not half:
        return []
    return [name for name, there in ((FLASH_KERNEL, flash), (VARLEN_KERNEL, varlen)) if there()]


def enable_packing(
    model: PreTrainedModel,
    *,
    packing: bool | str,
    attention: str,
    kernels: list[str],
    at_work: Callable[[], AbstractContextManager[None]],
    loops: bool = True,
) -> bool:
    """Give the model the attention that packed rows need, where it is exact.

    Args:
        model: A causal language model; its attention is set, its weights stay.
        packing: True demands packed rows, False forbids them, "auto" takes them where nothing is lost by it.
        attention: The attention the user named, or "auto".
        kernels: Those of `available_kernels`.
        at_work: Within this block the model is where it trains, in the precision it trains in.
        loops: Whether going from document to document costs little.  A GPU would wait for each of them.

    Returns:
        Whether rows are laid packed.

    Raises:
        ConfigError: If packed rows are demanded and not exact, or the named attention cannot train.
    """
    own, family = model.config._attn_implementation, model.config.model_type
    if attention in FUSED_KERNELS:
        with at_work():
            fault = untrainable_reason(model)
        if fault:
            raise ConfigError(
                translate(
                    "model.attention={attention}: {family} cannot be trained with it here ({fault}); "
                    "take model.attention=auto, or sdpa",
                    attention=attention,
                    family=family,
                    fault=fault,
                )
            )
    for name in candidate_kernels(packing, attention, kernels, own, loops=loops):
        if name not in FUSED_KERNELS:
            if supports_packing(model, name):
                return True
            continue
        with at_work():
            if supports_packing(model, name) and not untrainable_reason(model):
                return True
        model.set_attn_implementation(own)
    if packing is True:
        tried = translate("any attention") if attention == "auto" else f"model.attention={attention}"
        other = (
            "data.packing=false" if attention == "auto" else translate("data.packing=false, or model.attention=auto")
        )
        raise ConfigError(
            translate(
                "data.packing=true: {family} with {tried} lets packed documents see each other, or "
                "scores them otherwise than alone, so what is learned would depend on their "
                "neighbours; try {other}",
                family=family,
                tried=tried,
                other=other,
            )
        )
    return False


def candidate_kernels(
    packing: bool | str, attention: str, kernels: list[str], own: str, *, loops: bool = True
) -> list[str]:
    """Attentions to try for packed rows, in order.

    A dense mask over a whole row costs more than pads would, and so do hundreds of small products on a GPU: those are
    used only with packing=true.
    """
    if packing is False:
        return []
    if attention == "auto":
        forced = packing is True
        return [*kernels, *([DOCUMENT_KERNEL] if loops or forced else []), *([own] if forced else [])]
    return [attention] if packing is True or attention in (FLASH_KERNEL, VARLEN_KERNEL) else []


GATHERED_DTYPE = "gathered_dtype"  # attribute of a model spread over processes: the numbers that it computes in
PROBE_ERRORS = (RuntimeError, IndexError, TypeError, ValueError, AttributeError, AssertionError, ImportError)
WINDOW_ATTRIBUTES = (
    "sliding_window",
    "attention_chunk_size",
    "local_attention",
    "window_size",
)  # in configs and in layers
FIRST_DOCUMENT, OTHER_DOCUMENT, SECOND_DOCUMENT = (
    [3, 1, 4, 1, 5],
    [9, 2, 6, 5, 3],
    [2, 7, 1, 8, 2, 8, 1, 8, 2],
)  # documents; any tokens do


def logit_tolerance(model: PreTrainedModel) -> float:
    """The difference of logits that rounding explains, as a share of their spread; leaks measured from 6e-2 up."""
    half = torch.is_autocast_enabled(model.device.type) or getattr(model, GATHERED_DTYPE, None) is torch.bfloat16
    return 5e-2 if half else 1e-4


@torch.no_grad()
def logits_agree(
    model: PreTrainedModel, one: Callable[[], Tensor], other: Callable[[], Tensor], *, part: float = 1.0
) -> bool:
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
        near = left.shape == right.shape and (left - right).abs().max() <= part * logit_tolerance(model) * left.std()
        return bool(near)
    except PROBE_ERRORS:
        return False
    finally:
        model.train(training)


def supports_packing(model: PreTrainedModel, attention: str) -> bool:
    """Switch the model to `attention` if packed rows then give the logits of their documents alone.

    Windows are narrowed for the question, so that the documents are longer than what a position sees.

    Returns:
        Whether the model now takes packed rows; if not, it is left as it was.
    """
    before = model.config._attn_implementation

    def logits(documents: Sequence[list[int]], attention: str) -> Tensor:
        set_attention(model, attention)
        row = pack_examples([Example(ids, [IGNORE] * len(ids), 0, 0) for ids in documents])
        logits: Tensor = model(**causal_inputs(micro_to_device(row, model.device))).logits
        return logits

    def alone() -> Tensor:
        return torch.cat([logits([ids], before) for ids in (FIRST_DOCUMENT, SECOND_DOCUMENT)], 1)

    def second(first: list[int]) -> Tensor:
        return logits([first, SECOND_DOCUMENT], attention)[:, len(first) :]

    with narrowed_windows(model):
        exact = logits_agree(
            model, alone, lambda: logits([FIRST_DOCUMENT, SECOND_DOCUMENT], attention)
        ) and logits_agree(model, lambda: second(FIRST_DOCUMENT), lambda: second(OTHER_DOCUMENT), part=0.1)
    set_attention(model, attention if exact else before)
    return exact


@torch.no_grad()
def is_bidirectional(model: PreTrainedModel) -> bool:
    """Whether a position notices the token after it.

    Families of encoders load as causal models and keep looking both ways: their loss falls to nothing, because what
    is to be predicted is in plain sight, and they cannot write a word.
    """
    training, width = model.training, int(cast(Tensor, model.get_input_embeddings().weight).shape[0])
    rows = torch.tensor([FIRST_DOCUMENT, [*FIRST_DOCUMENT[:-1], OTHER_DOCUMENT[-1]]], device=model.device) % width
    model.eval()
    try:
        one, other = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
    finally:
        model.train(training)
    return bool((one - other).abs().max() > logit_tolerance(model) * one.std())


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
        raise ValueError(translate("{model_type} cannot change its attention", model_type=model.config.model_type))


@contextmanager
def narrowed_windows(model: PreTrainedModel, widest: int = 4) -> Iterator[None]:
    """Within this block no position looks back further than `widest` tokens, where the model has windows at all."""
    owners = [vars(owner) for owner in (model.config, model.config.get_text_config(), *model.modules())]
    limits = [
        (owner, name, owner[name])
        for owner in owners
        for name in WINDOW_ATTRIBUTES
        if isinstance(owner.get(name), int) and owner[name] > widest
    ]
    largest = max((value for *_, value in limits), default=widest)
    for owner, name, value in limits:
        owner[name] = max(1, value * widest // largest)  # in proportion: some layers keep half of what the config says
    try:
        yield
    finally:
        for owner, name, value in limits:
            owner[name] = value


def untrainable_reason(model: PreTrainedModel) -> str | None:
    """The reason why the model gives no gradient: some kernels know no dropout, or no backward pass here."""
    training, kept = model.training, [p.grad for p in model.parameters()]
    model.train()
    model.zero_grad(set_to_none=True)  # else what is kept would be added to
    try:
        row = micro_to_device(
            pack_examples(
                [Example(FIRST_DOCUMENT, FIRST_DOCUMENT, 4, 0), Example(SECOND_DOCUMENT, SECOND_DOCUMENT, 8, 0)]
            ),
            model.device,
        )
        model(**causal_inputs(row)).logits.float().sum().backward()
    except PROBE_ERRORS as fault:
        return first_line(fault)
    finally:
        model.train(training)
        for parameter, grad in zip(model.parameters(), kept, strict=True):
            parameter.grad = grad
    return None
