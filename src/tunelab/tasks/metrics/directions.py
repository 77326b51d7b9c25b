"""Which way each metric improves, and the monitored metric of each task; needs no torch."""

from collections.abc import Mapping

DEFAULT_MONITORS: Mapping[str, str] = {  # by `data.task`; each task class says the same of itself
    "instruction": "val/loss",
    "classification": "val/f1",
    "regression": "val/mse",
    "preference": "val/loss",
}
LOWER_IS_BETTER = frozenset(
    {"loss", "perplexity", "mse", "mae", "unfinished", "unmatched"}
    | {"time", "seconds", "memory_mb", "gpu_peak_mb", "parameters", "trainable"}
)


def metric_direction(name: str) -> str:
    """`min` or `max`: which way a score is better, by the last part of its name."""
    return "min" if name.rpartition("/")[2] in LOWER_IS_BETTER else "max"
