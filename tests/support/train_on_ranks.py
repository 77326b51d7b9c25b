"""Three steps and a validation of 37 rows on some processes.  Started by tests: DEVICES FILE [fsdp|split] [chunked]."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.uneven_rows import tiny_model, uneven_examples
from tunelab.config.schema import FsdpConfig
from tunelab.data.examples import Example
from tunelab.models import chunked_logits
from tunelab.models.sharding import gather_tree
from tunelab.regularization.loss_penalties import LossPenalties
from tunelab.tasks.instruction import Instruction
from tunelab.training.datamodule import BatchDataModule
from tunelab.training.module import FineTuner
from tunelab.training.sharded_strategy import ShardedStrategy, share_model

chunked_logits.LOGITS_BUDGET, chunked_logits.LEAST_ROWS = 2 * 4 * 50 * 5, 5  # few positions in a part
warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Watch(Callback):
    """Keeps the loss and the penalty of every step and the number of tokens that were scored."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.penalties: list[float] = []
        self.tokens = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.penalties.append(float(trainer.callback_metrics["train/penalty_norms"]))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.tokens = float(pl_module.val_scores.count.compute())


def main(devices: int, target: Path, width: int, chunked: bool) -> None:
    """Train, and leave losses, scores and weights in `target`."""
    task, watch = Instruction(), Watch()
    task.chunked_loss = chunked
    # each of 37 rows is scored on one token, so that the count of tokens is the count of rows
    scored = [
        Example(e.ids, [-100] * (len(e.ids) - 1) + [e.ids[-1]], 1, i)
        for i, e in enumerate([*uneven_examples(), *uneven_examples()][:37])
    ]
    data = BatchDataModule(
        {"train": uneven_examples()[:19], "validation": scored, "test": []},
        task, batch_size=9, eval_batch_size=8, micro_tokens=60, seed=1, packed=False, workers=0,
    )  # fmt: skip
    shrink = LossPenalties({"norms": lambda model, _: 0.1 * sum(w.norm() for w in model.parameters())}, 3)
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, max_epochs=1, callbacks=[watch], logger=False, num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, strategy=ShardedStrategy(FsdpConfig(tensor_parallel=width)) if width else "auto",
    )  # fmt: skip
    model = tiny_model()
    share_model(trainer, model)
    module = FineTuner(
        model, task, optimizer=lambda p: torch.optim.SGD(p, 0.1), schedule=lambda step: 1.0, penalties=shrink
    )
    trainer.fit(module, datamodule=data)
    weights = gather_tree(dict(module.model.state_dict()), keep=True)
    if trainer.is_global_zero:
        val = float(trainer.callback_metrics["val/loss"])
        curves = {"losses": watch.losses, "penalties": watch.penalties, "val": val, "counted": watch.tokens}
        torch.save({**curves, "weights": weights}, target)


if __name__ == "__main__":
    widths = {"fsdp": 1, "split": 2}
    main(int(sys.argv[1]), Path(sys.argv[2]), max(widths.get(word, 0) for word in sys.argv), "chunked" in sys.argv[3:])
