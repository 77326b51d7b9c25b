"""A callback by which every rank leaves the step that a trial of a search ended at: `rank_N.json` in its run folder."""

import json
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from tunelab.training.callbacks.search_trial import Pruning


class RankLog(Callback):
    """Writes the file at the end of the training."""

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Training ended, by itself or pruned."""
        (pruning,) = [one for one in trainer.callbacks if isinstance(one, Pruning)]  # type: ignore[attr-defined]
        found = {"step": trainer.global_step, "pruned": pruning.pruned, "reports": pruning.report_score is not None}
        (Path(trainer.default_root_dir) / f"rank_{trainer.global_rank}.json").write_text(json.dumps(found))
