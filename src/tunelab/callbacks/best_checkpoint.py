"""Keep the weights of the best validation."""

from math import isfinite
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override


class BestCheckpoint(Checkpoint):
    """Saves the weights whenever `monitor` improves.  A score that is not finite never counts as best.

    Args:
        path: Where the one best checkpoint lies; it is replaced as a whole.
        monitor: Name of the score, such as `val/loss`.
        mode: "min" or "max".

    Attributes:
        score: Best value so far, or None.
        step: Optimizer steps taken when it was reached.
        scores: All scores of that validation.
    """

    def __init__(self, path: Path, *, monitor: str, mode: str) -> None:
        self.path, self.monitor, self.mode = path, monitor, mode
        self.score: float | None = None
        self.step = 0
        self.scores: dict[str, float] = {}

    @property
    @override
    def state_key(self) -> str:
        return f"BestCheckpoint[{self.monitor}]"

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        score = found.get(self.monitor, float("nan"))
        if not isfinite(score) or (self.score is not None and not self.better(score, self.score)):
            return
        self.score, self.step, self.scores = score, trainer.global_step, found
        trainer.save_checkpoint(self.path, weights_only=True)

    def better(self, new: float, old: float) -> bool:
        """Whether `new` beats `old`; a tie keeps the earlier weights."""
        return new < old if self.mode == "min" else new > old

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "step": self.step, "scores": self.scores}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.step, self.scores = state_dict["score"], state_dict["step"], state_dict["scores"]
