"""Which rows a model is given: documents end to end, or padded."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec

from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from tunelab.errors import ConfigError
from tunelab.models.document_attention import NAME, VARLEN
from tunelab.models.probe import takes_flat_rows, why_untrainable

FLASH = "flash_attention_2"
KERNELS = (FLASH, VARLEN, "flex_attention")  # may lack dropout, a backward pass, or this device


def varlen_available() -> bool:
    """Whether this PyTorch brings attention over documents of any length in one kernel."""
    return find_spec("torch.nn.attention.varlen") is not None


def fast_kernels(
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
    return [name for name, there in ((FLASH, flash), (VARLEN, varlen)) if there()]


def choose_layout(
    model: PreTrainedModel,
    *,
    packing: bool | str,
    attention: str,
    kernels: list[str],
    at_work: Callable[[], AbstractContextManager[None]],
    loops: bool = True,
) -> bool:
    """Give the model the attention that flat rows need, where it is exact.

    Args:
        model: A causal language model; its attention is set, its weights stay.
        packing: True demands flat rows, False forbids them, "auto" takes them where nothing is lost by it.
        attention: The attention the user named, or "auto".
        kernels: What `fast_kernels` found.
        at_work: Within this block the model is where it trains, in the precision it trains in.
        loops: Whether going from document to document costs little.  A GPU would wait for each of them.

    Returns:
        Whether rows are laid flat.

    Raises:
        ConfigError: If flat rows are demanded and not exact, or the named attention cannot train.
    """
    own, family = model.config._attn_implementation, model.config.model_type
    if attention in KERNELS:
        with at_work():
            fault = why_untrainable(model)
        if fault:
            raise ConfigError(
                f"model.attention={attention}: {family} cannot be trained with it here ({fault}); "
                "take model.attention=auto, or sdpa"
            )
    for name in wanted(packing, attention, kernels, own, loops=loops):
        if name not in KERNELS:
            if takes_flat_rows(model, name):
                return True
            continue
        with at_work():
            if takes_flat_rows(model, name) and not why_untrainable(model):
                return True
        model.set_attn_implementation(own)
    if packing is True:
        tried = "any attention" if attention == "auto" else f"model.attention={attention}"
        other = "data.packing=false" if attention == "auto" else "data.packing=false, or model.attention=auto"
        raise ConfigError(
            f"data.packing=true: {family} with {tried} lets packed documents see each other, or scores them otherwise "
            f"than alone, so what is learned would depend on their neighbours; try {other}"
        )
    return False


def wanted(packing: bool | str, attention: str, kernels: list[str], own: str, *, loops: bool = True) -> list[str]:
    """Attentions to try for flat rows, in order.

    A dense mask over a whole row costs more than pads would, and so do hundreds of small products on a GPU: those are
    used only where flat rows are asked for.
    """
    if packing is False:
        return []
    if attention == "auto":
        asked = packing is True
        return [*kernels, *([NAME] if loops or asked else []), *([own] if asked else [])]
    return [attention] if packing is True or attention in (FLASH, VARLEN) else []
