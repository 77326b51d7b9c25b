"""Keeps other packages from talking over the run: tips, banners and progress bars nobody asked for."""

import logging
import os
import warnings

_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning_utilities.core.rank_zero",
    "lightning.pytorch",
    "lightning.fabric",
    "lightning.pytorch.accelerators.cuda",
    "lightning.fabric.accelerators.cuda",
    "transformers.distributed.tensor_parallel",
    "bitsandbytes.backends.cpu.ops",  # which PEFT loads where it is installed
)
_MESSAGES = (  # parts of log lines that tell the user nothing to act on
    "litlogger",
    "litmodels",
    "GPU available:",
    "TPU available:",
    "HPU available:",
    "IPU available:",
    "LOCAL_RANK: ",
    "has Tensor Cores",
    "was configured so",
    "Trainer.fit` stopped:",
    "Seed set to",
    "Using default `ModelCheckpoint`",
    "Loaded model weights from the checkpoint",
    "Restored all states from the checkpoint",
    "Restoring states from the checkpoint",
    "Automatic Mixed Precision (AMP)",
    "bfloat16 Automatic Mixed Precision",
    "layers were not sharded",
    "Failed to load CPU gemm_4bit_forward",  # a faster product for 4 bit on a CPU
)
_WARNINGS = (  # beginnings (regular expressions) of warnings that are settled by design here
    r".*does not have many workers.*",  # records are tokenised once; workers would only copy lists
    r".*`srun` command is available.*",  # one process on a login node is a legal way to try things
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"FLOPs not found for .*",  # then the peak is measured
    r".*anonymous setting has no effect.*",
)


class _Unasked(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return record.levelno > logging.WARNING or not any(part in text for part in _MESSAGES)


def silence_vendors() -> None:
    """Filter tips, device banners, vendor progress bars and advice that is settled by design.

    Errors and every other warning still come through.  Call once, before the trainer is made; calling again
    changes nothing.  Variables the user has set are respected.
    """
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Unasked) for known in logger.filters):
            logger.addFilter(_Unasked())
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a warning per data-loading process
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # loading it to say so would cost a run a second
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging as transformers_logging  # after the variables above

    transformers_logging.disable_progress_bar()
