"""Counts loss spikes: single steps whose loss stands far above that of the steps before."""

from collections import deque
from collections.abc import Sequence
from math import isfinite, nan
from statistics import median
from typing import Any

from lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from tunelab.training.callbacks.resource_monitors import is_log_step

WINDOW = 50  # steps that a loss is compared with
MIN_WINDOW = 20  # of them before anything is said
SIGMAS = 8.0  # spreads above the middle
MIN_RATIO = 1.5  # times the middle
MIN_FIRST_LOSS_SHARE = (
    0.1  # of the first loss, above the middle: where next to nothing is left, a multiple of it is no spike
)
MAD_TO_SIGMA = 1.4826  # median absolute deviation to the standard deviation of a normal distribution


class Spikes(Callback):
    """Logs `train/spikes`, the number of spikes so far, and `train/spike_height`, the largest as a multiple.

    A step is compared with the middle and the spread of the steps before it, both robust, so that a spike does not
    hide the next one; one that lasts counts once.  All of it is part of a checkpoint.
    """

    def __init__(self) -> None:
        self.window: deque[float] = deque(maxlen=WINDOW)
        self.first: float | None = None
        self.count, self.height, self.in_spike = 0, 0.0, False

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(getattr(pl_module, "step_loss", nan))
        if isfinite(loss):
            self.add_loss(loss)
        if is_log_step(trainer):
            pl_module.log_dict({"train/spikes": float(self.count), "train/spike_height": self.height})

    def add_loss(self, loss: float) -> None:
        """Take in the loss of the next step."""
        self.first = loss if self.first is None else self.first
        ratio = spike_ratio(loss, self.window, self.first)
        self.count += bool(ratio) and not self.in_spike
        self.height, self.in_spike = max(self.height, ratio), bool(ratio)
        self.window.append(loss)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "window": list(self.window),
            "first": self.first,
            "count": self.count,
            "height": self.height,
            "inside": self.in_spike,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.window = deque(state_dict["window"], maxlen=WINDOW)
        self.first, self.count = state_dict["first"], int(state_dict["count"])
        self.height, self.in_spike = float(state_dict["height"]), bool(state_dict["inside"])


def spike_ratio(loss: float, before: Sequence[float], first: float) -> float:
    """The ratio of a spike to the median of the losses before it; 0 where it is none.

    Args:
        loss: Of a step.
        before: Of the steps before it.
        first: Of the first step of the run.

    Example:
        >>> spike_ratio(9.0, [1.0, 1.1] * 10, 3.0), spike_ratio(1.2, [1.0, 1.1] * 10, 3.0)
        (8.57, 0.0)
    """
    if len(before) < MIN_WINDOW:
        return 0.0
    middle = median(before)
    spread = MAD_TO_SIGMA * median(abs(value - middle) for value in before)
    bound = max(middle + SIGMAS * spread, MIN_RATIO * middle, middle + MIN_FIRST_LOSS_SHARE * abs(first))
    return round(loss / middle, 2) if loss > bound and middle > 0 else 0.0
