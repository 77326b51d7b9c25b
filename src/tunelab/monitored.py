"""Which score a run follows, and which way it gets better; known before anything heavy is loaded."""

from collections.abc import Mapping

MONITORS: Mapping[str, str] = {  # by `data.task`; each task class says the same of itself
    "instruction": "val/loss",
    "classification": "val/f1",
    "regression": "val/mse",
    "preference": "val/loss",
}
LOWER = frozenset(
    {"loss", "perplexity", "mse", "mae", "unfinished", "unmatched"}
    | {"time", "seconds", "memory_mb", "gpu_peak_mb", "parameters", "trainable"}
)


def direction(name: str) -> str:
    """`min` or `max`: which way a score is better, by the last part of its name."""
    return "min" if name.rpartition("/")[2] in LOWER else "max"
