"""Out-of-memory errors: how to recognise one, and what to try."""

import torch

from tunelab.config.schema import RunConfig
from tunelab.errors import TuneLabError
from tunelab.language.translation import translate

OUT_OF_MEMORY_TEXTS = ("out of memory", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether a fault of a library says that memory ran out."""
    if isinstance(fault, TuneLabError):  # in words already
        return False
    return isinstance(fault, torch.OutOfMemoryError | MemoryError) or any(
        word in str(fault) for word in OUT_OF_MEMORY_TEXTS
    )


def explain_out_of_memory(fault: BaseException, settings: RunConfig) -> TuneLabError:
    """The fault in words.  A step may be cut into smaller passes and stays the same, so that comes first."""
    tries = [
        translate(
            "micro_tokens={smaller} (now {micro_tokens}; the steps stay the same), or "
            "find=micro_tokens for the largest that fits",
            smaller=max(1, settings.micro_tokens // 2),
            micro_tokens=settings.micro_tokens,
        ),
        translate(
            "data.max_tokens=N (now {max_tokens}), if a single long row is what does not fit",
            max_tokens=settings.data.max_tokens,
        ),
        translate(
            "eval.batch_size={smaller} (now {batch_size}), if it happened while answers were generated",
            smaller=max(1, int(settings.eval.batch_size) // 2),
            batch_size=settings.eval.batch_size,
        ),
    ]
    if not settings.checkpoints_activations:
        tries.append("memory.activation_checkpointing=true, which keeps a fraction of the activations")
    if settings.adapter.kind == "full":
        tries.append(translate("adapter=lora, which keeps no gradients and no optimizer state of the base"))
    first = str(fault).strip().partition("\n")[0] or type(fault).__name__
    lines = "\n".join(f"  - {one}" for one in tries)
    return TuneLabError(
        translate(
            "out of memory: {first}\nWhat was trained up to the last checkpoint is kept.  Try one "
            "of\n{lines}\n`tunelab inspect` with the same overrides says where the memory goes",
            first=first,
            lines=lines,
        )
    )
