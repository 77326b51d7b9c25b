"""train.py, of which every rank leaves the step that a trial of a search ended at: `rank_N.json` in its run folder."""

import json
from pathlib import Path
from typing import Any

import lightning as L

from tunelab.training.callbacks.search_trial import Pruning

TRAIN = Path(__file__).parents[2] / "train.py"


def leave(self: Pruning, trainer: L.Trainer, pl_module: Any) -> None:
    found = {"step": trainer.global_step, "pruned": self.pruned, "reports": self.report_score is not None}
    (Path(trainer.default_root_dir) / f"rank_{trainer.global_rank}.json").write_text(json.dumps(found))


Pruning.on_train_end = leave  # type: ignore[method-assign]

if __name__ == "__main__":  # executed here, so that trials and ranks are started by this very script
    exec(compile(TRAIN.read_text(), str(TRAIN), "exec"), {"__name__": "__main__", "__file__": str(TRAIN)})
