"""Whether a higher value of each metric is better; needs no torch, so that a search starts without it.

A `Scores` class brings the directions of its metrics as `higher_is_better`; those of this package stand here, because a
search must know them before torch is loaded.
"""

from collections.abc import Mapping

TOKEN_METRICS: Mapping[str, bool] = {"loss": False, "perplexity": False, "token_accuracy": True}
TEXT_METRICS: Mapping[str, bool] = {"exact_match": True, "token_f1": True, "rougeL": True, "unfinished": False}
CHOICE_METRICS: Mapping[str, bool] = {"accuracy": True, "f1": True, "f1_all": True, "unmatched": False}
LABEL_METRICS: Mapping[str, bool] = {
    "loss": False, "accuracy": True, "f1": True, "f1_all": True, "precision": True, "recall": True, "mcc": True,
    "micro_f1": True,
}  # fmt: skip
REGRESSION_METRICS: Mapping[str, bool] = {
    "loss": False, "mse": False, "mae": False, "r2": True, "pearson": True, "spearman": True,
}  # fmt: skip
PREFERENCE_METRICS: Mapping[str, bool] = {
    "loss": False, "reward_accuracy": True, "reward_margin": True, "chosen_reward": True, "rejected_reward": False,
}  # fmt: skip
RUN_METRICS: Mapping[str, bool] = {  # of the training itself; neither way is better of lr, grad_norm, sparsity ...
    "time": False, "seconds": False, "memory_mb": False, "gpu_peak_mb": False, "parameters": False, "trainable": False,
    "plain_loss": False, "loss_epoch": False, "generalisation_gap": False, "skipped_steps": False, "spikes": False,
    "spike_height": False, "dead_units": False, "padding_fraction": False, "ece": False,
    "samples_per_second": True, "tokens_per_second": True, "mfu": True,
}  # fmt: skip

_HIGHER_IS_BETTER: dict[str, bool | None] = {
    **TOKEN_METRICS, **TEXT_METRICS, **CHOICE_METRICS, **LABEL_METRICS, **REGRESSION_METRICS, **PREFERENCE_METRICS,
    **RUN_METRICS,
}  # fmt: skip


def register_directions(higher_is_better: Mapping[str, bool | None]) -> None:
    """Make the directions of further metrics known, by their bare names; None for one that has none."""
    _HIGHER_IS_BETTER.update(higher_is_better)


def metric_direction(name: str) -> str | None:
    """`min` or `max`: which way a score is better, by the last part of its name; None where nobody has said so."""
    higher = _HIGHER_IS_BETTER.get(name.rpartition("/")[2])
    return None if higher is None else "max" if higher else "min"
