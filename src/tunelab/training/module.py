"""FineTuner: the training step, from a batch to one step of the optimizer.

The loss of a micro-batch lies in `loss.py`, validation and test in `evaluate.py`, the tasks in `tasks/`, parameter
groups and schedules in `optim/`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from math import isfinite
from types import MappingProxyType
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

from tunelab.data.batching import mix_seeds
from tunelab.data.examples import Batch, MicroBatch
from tunelab.errors import Diverged
from tunelab.language.translation import translate
from tunelab.models.freezing import load_trainable_state, trainable_state
from tunelab.models.sharding import gather_full, reshard, shard_state
from tunelab.optim.lbfgs import closure_with_first_loss
from tunelab.optim.step_in_backward import StepInBackward
from tunelab.regularization.averaging import checkpoint_weights, swap_averaged_weights
from tunelab.regularization.loss_penalties import LossPenalties
from tunelab.regularization.regularizer import Regularizer
from tunelab.tasks.base import Scores, SourceScores, Task
from tunelab.tasks.metrics.answer_metrics import GenerationEvaluator
from tunelab.tasks.metrics.own_metrics import full_scores
from tunelab.training.evaluate import PredictionCollector, TrainSample, evaluate_task
from tunelab.training.loss import TrainingLoss
from tunelab.training.nonfinite import NonFiniteGuard
from tunelab.training.processes import row_share

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]
ScheduleFunction = Callable[[int], float]  # optimizer step to a factor on the peak rate


class EvalModule(L.LightningModule):
    """The validation and test steps of a model; the training step is up to a subclass.

    Args:
        model: The network.
        task: What is learned and how it is scored.
        by_source: With several sources, the scores of each in `validation` and `test`.

    Attributes:
        generation_check: Has some validation rows answered by generation; None generates nothing.
        train_sample: Training rows whose loss is compared with the validation loss; None compares nothing.
        test_prefix: What the names of test scores begin with.
        test_predictions: Collects predictions in the test pass; None keeps none.
        test_tables: Tables of the last test pass.
    """

    def __init__(self, model: PreTrainedModel, task: Task, by_source: Mapping[str, SourceScores]) -> None:
        super().__init__()
        self.model, self.task = model, task
        self.val_scores, self.test_scores = full_scores(task), full_scores(task)
        self.val_sources, self.test_sources = (
            by_source.get(split, SourceScores(task.scores)) for split in ("validation", "test")
        )
        self.generation_check: GenerationEvaluator | None = None
        self.train_sample: TrainSample | None = None
        self.test_prefix = "test"
        self.test_predictions: PredictionCollector | None = None
        self.test_tables: dict[str, Any] = {}

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        evaluate_task(batch.micro_batches, self.task, self.model, self.val_scores, self.val_sources)
        if self.generation_check is not None:
            self.generation_check.update(self.model, batch)

    @override
    def on_validation_epoch_end(self) -> None:
        loss = self._log_scores("val", self.val_scores, self.val_sources)
        if self.train_sample is not None:
            with self.trainer.precision_plugin.val_step_context():
                to_device = self.trainer.strategy.batch_to_device
                share = row_share(self.trainer)
                train_loss = self.train_sample.loss(self.model, to_device, share.rank, share.size)
            self.log_dict({"train/plain_loss": train_loss, "val/generalisation_gap": loss - train_loss})
        if self.generation_check is not None:
            with self.trainer.precision_plugin.val_step_context():
                self.generation_check.finish(self.model)
            self.log_dict({f"val/{name}": value for name, value in self.generation_check.compute().items()})
            self.generation_check.reset()

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        collectors = [] if self.test_predictions is None else [self.test_predictions]
        evaluate_task(batch.micro_batches, self.task, self.model, self.test_scores, self.test_sources, *collectors)

    @override
    def on_test_epoch_end(self) -> None:
        if self.test_predictions is not None:
            with self.trainer.precision_plugin.test_step_context():
                self.test_predictions.finish()
        self.test_tables = self.test_scores.report()
        self._log_scores(self.test_prefix, self.test_scores, self.test_sources)

    def _log_scores(self, split: str, scores: Scores, sources: SourceScores) -> float:
        """The loss over all ranks; logs it with every other score.

        Raises:
            Diverged: If it is NaN or Inf.
        """
        values = scores.compute()  # torchmetrics adds sums and counts over ranks: no rank repeats a row
        values |= sources.compute()
        scores.reset()
        sources.reset()
        if values["loss"] != values["loss"] or abs(values["loss"]) == float("inf"):
            raise Diverged(
                translate(
                    "{split}/loss is {loss} at step {global_step}; lower lr or clip harder",
                    split=split,
                    loss=values["loss"],
                    global_step=self.global_step,
                )
            )
        self.log_dict({f"{split}/{name}": value for name, value in values.items()})
        return values["loss"]


class FineTuner(EvalModule):
    """Sums the loss over the micro-batches of a batch, divides by the loss weight of the whole batch, and steps once.

    So the gradient depends neither on how a batch is cut, nor on how many devices share it, and every count of
    Lightning's (`global_step`, `max_steps`, `val_check_interval`) counts optimizer steps.

    Args:
        model: The network; trained in place.
        task: What is learned and how it is scored.
        optimizer: Builds the optimizer from trainable parameters.
        schedule: Factor on the peak rate, from the optimizer step.
        clip: Largest gradient norm; 0 switches clipping off.
        seed: With step and rank it fixes dropout, so that a resumed run draws what the uninterrupted one drew.
        partial: Whether checkpoints hold the trained weights only, and the rest comes from the base model.
        frozen_at_step: The parameters that do not learn yet, from the optimizer step.
        loss: The training loss of a micro-batch; None is the task's own, without noise.
        regularizer: What follows each optimizer step; None changes nothing.
        penalties: What is added to the loss of each step; None adds nothing.
        by_source: With several sources, the scores of each in `validation` and `test`.
        guard: What happens to a step whose loss or gradient is NaN or Inf; None ends the run.
        step_in_backward: Whether each weight is stepped within the backward pass, so that its gradient goes at once.

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
        frozen_at_step: Callable[[int], Sequence[nn.Parameter]] = lambda step: (),
        loss: TrainingLoss | None = None,
        regularizer: Regularizer | None = None,
        penalties: LossPenalties | None = None,
        by_source: Mapping[str, SourceScores] = MappingProxyType({}),
        guard: NonFiniteGuard | None = None,
        step_in_backward: bool = False,
    ) -> None:
        super().__init__(model, task, by_source)
        self.automatic_optimization = False
        self.make_optimizer, self.schedule = optimizer, schedule
        self.clip, self.seed, self.partial, self.frozen_at_step = clip, seed, partial, frozen_at_step
        self.training_loss = loss or TrainingLoss(task, model)
        self.regularizer = regularizer or Regularizer(model)
        self.penalties = penalties or LossPenalties()
        self.guard = guard or NonFiniteGuard(model, self.regularizer)
        self.step_in_backward = step_in_backward
        self.step_loss = self.step_norm = float("nan")
        # double: float32 cannot count past 16.7 million tokens; persistent: a mid-epoch resume keeps the epoch's mean
        self.epoch_loss = MeanMetric().set_dtype(torch.double)
        self.epoch_loss.persistent(True)
        self.step_scores = task.step_scores()

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer = cast(Optimizer, self.optimizers())
        self.guard.save_state_if_due(self.global_step, optimizer)
        norm, mean_loss = self._compute_gradient(batch)
        # the same on every rank
        self.step_loss, self.step_norm = torch.stack((mean_loss, norm.to(mean_loss))).tolist()
        if not (isfinite(self.step_loss) and isfinite(self.step_norm)):
            return self._skip_step(optimizer)
        self.log("train/lr", optimizer.param_groups[0]["lr"])
        scores = self.step_scores.compute() if self.step_scores is not None else {}
        penalties = {f"train/penalty_{name}": value for name, value in self.penalties.values.items()}
        if getattr(optimizer, "needs_closure", False):
            first_loss = mean_loss + self.penalties.total()
            closure = closure_with_first_loss(first_loss, lambda: self._recompute_gradient(batch))
            optimizer.step(cast(Callable[[], float], closure))
        else:
            optimizer.step()
        self.log_dict(self.regularizer.after_optimizer_step(optimizer))
        self.log_dict(penalties)
        optimizer.zero_grad()
        cast(LambdaLR, self.lr_schedulers()).step()
        self.guard.last_loss = self.step_loss
        self.epoch_loss.update(mean_loss, batch.loss_weight)
        self.log_dict({"train/loss": mean_loss, "train/grad_norm": norm}, prog_bar=False)
        if self.guard.skipped_steps:
            self.log("train/skipped_steps", float(self.guard.skipped_steps))
        if self.step_scores is not None:
            self.step_scores.reset()
            self.log_dict({f"train/{name}": value for name, value in scores.items() if name != "loss"})

    def compute_loss(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Logits of a micro-batch, and its training loss summed over it, a float32 scalar with a graph.

        What a subclass changes to learn by another loss: the step divides the sum by the loss weight of the batch.
        """
        return self.training_loss(micro)

    def _compute_gradient(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Leave the gradient of a batch in the parameters; its norm before clipping, and the mean loss over all ranks.

        The seed of dropout follows from the step alone, not from what was drawn before: a resumed run, and a second
        pass over the batch, draw the same.
        """
        share = row_share(self.trainer)
        torch.manual_seed(mix_seeds(self.seed, self.global_step, share.rank))
        no_sync = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)  # only with several ranks
        scale = share.size / max(batch.loss_weight, 1e-12)  # gradients are averaged over ranks: undo it
        total = torch.zeros((), device=self.device)
        frozen, stepped = self.frozen_at_step(self.global_step), None
        for number, micro in enumerate(batch.micro_batches, 1):
            is_last = number == len(batch.micro_batches)
            with nullcontext() if is_last else no_sync():
                logits, loss = self.compute_loss(micro)
                # once per step and, unlike a sum over rows, the same on every rank: their mean is the penalty itself
                penalty = self.penalties.compute(self.model, self.global_step) if is_last else 0
                if self.step_in_backward and is_last and isfinite(float(total + loss.detach())):
                    stepped = StepInBackward(cast(Optimizer, self.optimizers(use_pl_optimizer=False)))
                with nullcontext() if stepped is None else stepped.at_work(frozen):
                    self.manual_backward(loss * scale + penalty)
            if self.step_scores is not None:
                self.step_scores.update(logits.detach(), micro)
            total += loss.detach()
        for parameter in frozen:
            parameter.grad = None  # neither step, decay nor momentum moves a parameter without a gradient
        max_norm = self.clip if self.clip > 0 else float("inf")
        learned = [p for p in self.model.parameters() if p.grad is not None]
        norm = clip_gradients(learned, max_norm) if stepped is None else stepped.norm()
        sum_over_ranks = cast(Tensor, self.trainer.strategy.reduce(total, group=share.processes, reduce_op="sum"))
        return norm, sum_over_ranks / max(batch.loss_weight, 1e-12)

    def _recompute_gradient(self, batch: Batch) -> Tensor:
        """Leave the gradient of the same batch at other weights in the parameters, with the same dropout; its loss."""
        self.zero_grad()
        _, mean_loss = self._compute_gradient(batch)
        return mean_loss + self.penalties.total()

    def _skip_step(self, optimizer: Optimizer) -> None:
        """Leave out a step whose loss or gradient is NaN or Inf, or end the run."""
        if self.step_scores is not None:
            self.step_scores.reset()
        group = max(optimizer.param_groups, key=lambda group: float(group["initial_lr"]))  # of a lower layer it is less
        self.guard.skip_step(
            translate(
                "step {global_step}: loss {step_loss:.4g}, gradient norm {step_norm:.4g}. A step "
                "from here would spoil the weights. Lower lr (at most {peak:.3g} in this run, {lr:.3g} at "
                "this step), lengthen scheduler.warmup, or inspect the rows of this step",
                global_step=self.global_step,
                step_loss=self.step_loss,
                step_norm=self.step_norm,
                peak=group["initial_lr"],
                lr=group["lr"],
            ),
            optimizer,
            cast(LambdaLR, self.lr_schedulers()),
        )
        skipped = float(self.guard.skipped_steps)
        metrics = {"loss": self.step_loss, "grad_norm": self.step_norm, "skipped_steps": skipped}
        self.log_dict({f"train/{name}": value for name, value in metrics.items()})  # else the last ones stand again

    @override
    def on_train_epoch_end(self) -> None:
        self.log("train/loss_epoch", self.epoch_loss.compute().float())
        self.epoch_loss.reset()

    @override
    def on_validation_start(self) -> None:
        swap_averaged_weights(self._weight_averages(), averages=self.trainer.state.fn == "fit")

    @override
    def on_validation_end(self) -> None:  # checkpoints have been written by now
        reshard(self.model)  # weights gathered in evaluation are averages
        swap_averaged_weights(self._weight_averages(), averages=False)

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer([p for p in self.model.parameters() if p.requires_grad])
        return [optimizer], [LambdaLR(optimizer, self.schedule)]

    @override
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> None:
        load_trainable_state(self, shard_state(self, state_dict))

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        fresh = "optimizer_states" not in checkpoint  # weights to be used, not to go on from
        checkpoint["state_dict"] = checkpoint_weights(
            self._weight_averages(), checkpoint["state_dict"], self, averages=fresh
        )
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

    def _weight_averages(self) -> list[object]:
        """Keepers of an average of the weights: those of the block `regularization`, else the optimizer's own."""
        begun: list[object] = [average for average in self.regularizer.averages if average.averaged_steps]
        return begun or list(self.trainer.optimizers)


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """The norm of all gradients together, which are then scaled down to `max_norm` where it is larger."""
    norm = gather_full(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    # torch multiplies by one where nothing is clipped, as asking a GPU would wait for it
    if norm.device.type != "cpu" or not max_norm / (norm + 1e-6) >= 1:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def task_state(task: Task) -> Mapping[str, Any]:
    """Model head and its options, so that a checkpoint can be used alone; plain values."""
    return {"head": task.head, "options": dict(task.head_options())}
