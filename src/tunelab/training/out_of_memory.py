"""Out-of-memory errors: how to recognise one, and what to try."""

import torch

from tunelab.config.schema import RunConfig
from tunelab.errors import TuneLabError

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
        f"micro_tokens={max(1, settings.micro_tokens // 2)} (now {settings.micro_tokens}; the steps stay the same), or "
        "find=micro_tokens for the largest that fits",
        f"data.max_tokens=N (now {settings.data.max_tokens}), if a single long row is what does not fit",
        f"eval.batch_size={max(1, int(settings.eval.batch_size) // 2)} (now {settings.eval.batch_size}), if it "
        "happened while answers were generated",
    ]
    if not settings.checkpoints_activations:
        tries.append("memory.activation_checkpointing=true, which keeps a fraction of the activations")
    if settings.adapter.kind == "full":
        tries.append("adapter=lora, which keeps no gradients and no optimizer state of the base")
    first = str(fault).strip().partition("\n")[0] or type(fault).__name__
    lines = "\n".join(f"  - {one}" for one in tries)
    return TuneLabError(
        f"out of memory: {first}\nWhat was trained up to the last checkpoint is kept.  Try one of\n{lines}\n"
        "`tunelab inspect` with the same overrides says where the memory goes"
    )
