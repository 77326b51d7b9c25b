"""One training step, wired.  What is learned and how it is scored lives in tasks/, rates and groups in optim/.

Shape letters: B sequences, T tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.data.batching import mix
from tunelab.data.examples import Step
from tunelab.errors import Diverged
from tunelab.tasks.base import Record, Scores, Task

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]
Schedule = Callable[[int], float]  # optimizer step to a factor on the peak rate


class FineTuner(L.LightningModule):
    """Sums the loss over a step's micro-batches, divides by the units of the whole step, and steps once.

    So the gradient depends neither on how a step is cut, nor on how many devices share it, and every count of
    Lightning's (`global_step`, `max_steps`, `val_check_interval`) counts optimizer steps.

    Args:
        model: The network; trained in place.
        task: What is learned and how it is scored.
        optimizer: Builds the optimizer from trainable parameters.
        schedule: Factor on the peak rate, from the optimizer step.
        clip: Largest gradient norm; 0 switches clipping off.
        seed: With step and rank it fixes dropout, so that a resumed run draws what the uninterrupted one drew.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: Task,
        *,
        optimizer: MakeOptimizer,
        schedule: Schedule,
        clip: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.task = model, task
        self.make_optimizer, self.schedule = optimizer, schedule
        self.clip, self.seed = clip, seed
        # double: float32 cannot count past 16.7 million tokens; persistent: a mid-epoch resume keeps the epoch's mean
        self.epoch_loss = MeanMetric().set_dtype(torch.double)
        self.epoch_loss.persistent(True)
        self.val_scores, self.test_scores = task.scores(), task.scores()
        self.test_name = "test"
        self.test_records: Sequence[Record] = ()
        self.keep_predictions: Callable[[list[dict[str, Any]]], None] = lambda rows: None

    @override
    def training_step(self, step: Step, batch_idx: int) -> None:
        torch.manual_seed(mix(self.seed, self.global_step, self.global_rank))  # dropout: the step's, not history's
        optimizer = cast(Optimizer, self.optimizers())
        norm, total = self._gradient(step)
        if not (norm.isfinite() and total.isfinite()):
            raise Diverged(
                f"stopped at step {self.global_step}: loss {float(total) / max(step.units, 1):.4g}, gradient norm "
                f"{float(norm):.4g}. A step from here would spoil the weights. Lower lr (now "
                f"{optimizer.param_groups[0]['lr']:.3g}), lengthen scheduler.warmup, or look at the rows of this step"
            )
        self.log("train/lr", optimizer.param_groups[0]["lr"])
        optimizer.step()
        optimizer.zero_grad()
        cast(LambdaLR, self.lr_schedulers()).step()
        mean = self.trainer.strategy.reduce(total, reduce_op="sum") / max(step.units, 1e-12)
        self.epoch_loss.update(mean, step.units)
        self.log_dict({"train/loss": mean, "train/grad_norm": norm}, prog_bar=False)

    def _gradient(self, step: Step) -> tuple[Tensor, Tensor]:
        """Leave the step's gradient in the parameters; its norm before clipping, and this rank's loss sum."""
        no_sync = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)  # only with several ranks
        scale = self.trainer.world_size / max(step.units, 1e-12)  # gradients are averaged over ranks: undo it
        total = torch.zeros((), device=self.device)
        for place, micro in enumerate(step.micros, 1):
            with nullcontext() if place == len(step.micros) else no_sync():
                loss = self.task.loss_sum(self.task.logits(self.model, micro), micro)
                self.manual_backward(loss * scale)
            total += loss.detach()
        bound = self.clip if self.clip > 0 else float("inf")
        gradients = [p for p in self.model.parameters() if p.grad is not None]
        return nn.utils.clip_grad_norm_(gradients, bound), total

    @override
    def on_train_epoch_end(self) -> None:
        self.log("train/loss_epoch", self.epoch_loss.compute().float())
        self.epoch_loss.reset()

    @override
    def validation_step(self, step: Step, batch_idx: int) -> None:
        for micro in step.micros:
            self.val_scores.update(self.task.logits(self.model, micro), micro)

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_scores("val", self.val_scores)

    @override
    def test_step(self, step: Step, batch_idx: int) -> None:
        for micro in step.micros:
            logits = self.task.logits(self.model, micro)
            self.test_scores.update(logits, micro)
            rows = [row for row in micro.rows.tolist() if row >= 0]
            if rows:
                records = [self.test_records[row] for row in rows]
                self.keep_predictions(self.task.predictions(self.model, micro, logits, records))

    @override
    def on_test_epoch_end(self) -> None:
        self.test_report = self.test_scores.report()
        self._log_scores(self.test_name, self.test_scores)

    def _log_scores(self, split: str, scores: Scores) -> None:
        found = scores.compute()  # torchmetrics adds sums and counts over ranks: no rank repeats a row
        scores.reset()
        if found["loss"] != found["loss"] or abs(found["loss"]) == float("inf"):
            raise Diverged(f"{split}/loss is {found['loss']} at step {self.global_step}; lower lr or clip harder")
        self.log_dict({f"{split}/{name}": value for name, value in found.items()})

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer([p for p in self.model.parameters() if p.requires_grad])
        return [optimizer], [LambdaLR(optimizer, self.schedule)]

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["tunelab"] = {"seed": self.seed, "task": self.task.name, **task_state(self.task)}


def task_state(task: Task) -> Mapping[str, Any]:
    """What a checkpoint must know of the task to be used alone; plain values."""
    return {"head": task.head, "options": dict(task.head_options())}
