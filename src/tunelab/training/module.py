"""FineTuner: one training step, wired.  What is learned and how it is scored lives in tasks/, parameter groups in
optim/.

Shape letters: B sequences, T tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from math import isfinite
from types import MappingProxyType
from typing import Any, cast

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.data.batching import mix_seeds
from tunelab.data.examples import Batch
from tunelab.models.freezing import load_trainable_state, trainable_state
from tunelab.optim.lbfgs import closure_with_first_loss
from tunelab.regularization.averaging import checkpoint_weights, swap_averaged_weights
from tunelab.regularization.regularizer import Regularizer
from tunelab.tasks.base import SourceScores, Task
from tunelab.training.evaluate import EvalModule
from tunelab.training.loss import TrainingLoss
from tunelab.training.nonfinite import NonFiniteGuard

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]
ScheduleFunction = Callable[[int], float]  # optimizer step to a factor on the peak rate


class FineTuner(EvalModule):
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
        partial: Whether checkpoints hold the trained weights only, and the rest comes from the base model.
        held: The parameters that do not learn yet, from the optimizer step.
        loss: The training loss of a micro-batch; None is the task's own, without noise.
        regularizer: What follows each optimizer step; None changes nothing.
        by_source: With several sources, the scores of each in `validation` and `test`.
        guard: What happens to a step that is not finite; None ends the run.

    Attributes:
        step_loss: Mean loss of the step just taken, over all ranks.
        step_norm: Norm of its gradient before clipping.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: Task,
        *,
        optimizer: OptimizerFactory,
        schedule: ScheduleFunction,
        clip: float = 1.0,
        seed: int = 0,
        partial: bool = False,
        held: Callable[[int], Sequence[nn.Parameter]] = lambda step: (),
        loss: TrainingLoss | None = None,
        regularizer: Regularizer | None = None,
        by_source: Mapping[str, SourceScores] = MappingProxyType({}),
        guard: NonFiniteGuard | None = None,
    ) -> None:
        super().__init__(model, task, by_source)
        self.automatic_optimization = False
        self.make_optimizer, self.schedule = optimizer, schedule
        self.clip, self.seed, self.partial, self.held = clip, seed, partial, held
        self.training_loss = loss or TrainingLoss(task, model)
        self.regularizer = regularizer or Regularizer(model)
        self.guard = guard or NonFiniteGuard(model, self.regularizer)
        self.step_loss = self.step_norm = float("nan")
        # double: float32 cannot count past 16.7 million tokens; persistent: a mid-epoch resume keeps the epoch's mean
        self.epoch_loss = MeanMetric().set_dtype(torch.double)
        self.epoch_loss.persistent(True)
        self.step_scores = task.step_scores()

    @override
    def training_step(self, step: Batch, batch_idx: int) -> None:
        optimizer = cast(Optimizer, self.optimizers())
        self.guard.remember(self.global_step, optimizer)
        torch.manual_seed(
            mix_seeds(self.seed, self.global_step, self.global_rank)
        )  # dropout: the step's, not history's
        norm, total = self._gradient(step)
        mean = self._mean(total, step)
        self.step_loss, self.step_norm = torch.stack((mean, norm.to(mean))).tolist()  # the same on every rank
        if not (isfinite(self.step_loss) and isfinite(self.step_norm)):
            return self._leave_out(optimizer)
        self.log("train/lr", optimizer.param_groups[0]["lr"])
        found = self.step_scores.compute() if self.step_scores is not None else {}
        if getattr(optimizer, "needs_closure", False):
            optimizer.step(cast(Callable[[], float], closure_with_first_loss(mean, lambda: self._again(step))))
        else:
            optimizer.step()
        self.log_dict(self.regularizer.after_optimizer_step(optimizer))
        optimizer.zero_grad()
        cast(LambdaLR, self.lr_schedulers()).step()
        self.guard.loss = self.step_loss
        self.epoch_loss.update(mean, step.loss_weight)
        self.log_dict({"train/loss": mean, "train/grad_norm": norm}, prog_bar=False)
        if self.guard.met:
            self.log("train/skipped_steps", float(self.guard.met))
        if self.step_scores is not None:
            self.step_scores.reset()
            self.log_dict({f"train/{name}": value for name, value in found.items() if name != "loss"})

    def _leave_out(self, optimizer: Optimizer) -> None:
        """Pass over a step that is not finite, or end the run."""
        if self.step_scores is not None:
            self.step_scores.reset()
        self.guard.leave_out(
            f"step {self.global_step}: loss {self.step_loss:.4g}, gradient norm {self.step_norm:.4g}. A step from here "
            f"would spoil the weights. Lower lr (now {optimizer.param_groups[0]['lr']:.3g}), lengthen "
            "scheduler.warmup, or look at the rows of this step",
            optimizer,
            cast(LambdaLR, self.lr_schedulers()),
        )
        figures = {"loss": self.step_loss, "grad_norm": self.step_norm, "skipped_steps": float(self.guard.met)}
        self.log_dict({f"train/{name}": value for name, value in figures.items()})  # else the last ones stand again

    def _gradient(self, step: Batch) -> tuple[Tensor, Tensor]:
        """Leave the step's gradient in the parameters; its norm before clipping, and this rank's loss sum."""
        no_sync = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)  # only with several ranks
        scale = self.trainer.world_size / max(step.loss_weight, 1e-12)  # gradients are averaged over ranks: undo it
        total = torch.zeros((), device=self.device)
        for place, micro in enumerate(step.micro_batches, 1):
            with nullcontext() if place == len(step.micro_batches) else no_sync():
                logits, loss = self.training_loss(micro)
                self.manual_backward(loss * scale)
            if self.step_scores is not None:
                self.step_scores.update(logits.detach(), micro)
            total += loss.detach()
        for parameter in self.held(self.global_step):
            parameter.grad = None  # neither step, decay nor momentum moves a parameter without a gradient
        bound = self.clip if self.clip > 0 else float("inf")
        gradients = [p for p in self.model.parameters() if p.grad is not None]
        return nn.utils.clip_grad_norm_(gradients, bound), total

    def _mean(self, total: Tensor, step: Batch) -> Tensor:
        """The loss of a whole step from this rank's sum."""
        return cast(Tensor, self.trainer.strategy.reduce(total, reduce_op="sum")) / max(step.loss_weight, 1e-12)

    def _again(self, step: Batch) -> Tensor:
        """Leave the gradient of the same step at other weights, with the same dropout; its loss."""
        self.zero_grad()
        torch.manual_seed(mix_seeds(self.seed, self.global_step, self.global_rank))
        _, total = self._gradient(step)
        return self._mean(total, step)

    @override
    def on_train_epoch_end(self) -> None:
        self.log("train/loss_epoch", self.epoch_loss.compute().float())
        self.epoch_loss.reset()

    @override
    def on_validation_start(self) -> None:
        swap_averaged_weights(self._averaging(), averages=self.trainer.state.fn == "fit")

    @override
    def on_validation_end(self) -> None:  # checkpoints have been written by now
        swap_averaged_weights(self._averaging(), averages=False)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer([p for p in self.model.parameters() if p.requires_grad])
        return [optimizer], [LambdaLR(optimizer, self.schedule)]

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> None:
        load_trainable_state(self, state_dict)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        fresh = "optimizer_states" not in checkpoint  # weights to be used, not to go on from
        checkpoint["state_dict"] = checkpoint_weights(self._averaging(), checkpoint["state_dict"], averages=fresh)
        if not fresh:
            checkpoint |= {"regularizer": self.regularizer.state(), "guard": self.guard.state()}
        if self.partial:
            checkpoint["state_dict"] = trainable_state(self, checkpoint["state_dict"])
        checkpoint["tunelab"] = {"seed": self.seed, "task": self.task.name, **task_state(self.task)}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "regularizer" in checkpoint:  # weights to be used alone have none
            self.regularizer.load(checkpoint["regularizer"])
        if "guard" in checkpoint:
            self.guard.load(checkpoint["guard"])

    def _averaging(self) -> list[object]:
        """What may keep an average of the weights.  One that was asked for stands in place of an optimizer's own."""
        begun: list[object] = [average for average in self.regularizer.averages if average.counted]
        return begun or list(self.trainer.optimizers)


def task_state(task: Task) -> Mapping[str, Any]:
    """What a checkpoint must know of the task to be used alone; plain values."""
    return {"head": task.head, "options": dict(task.head_options())}
