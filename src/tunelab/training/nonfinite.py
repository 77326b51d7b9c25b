"""The guard against a loss or gradient that is NaN or Inf: end the run, skip the step, or roll back."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Self, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from tunelab.config.schema import CallbacksConfig
from tunelab.errors import Diverged
from tunelab.language.translation import translate
from tunelab.regularization.regularizer import Regularizer

NONFINITE_POLICIES = ("stop", "skip", "rollback")
MAX_LOSS_GROWTH = 2.0  # a state is saved only while the loss is at most this many times that of the saved one


class NonFiniteGuard:
    """Decides before each optimizer step whether it may be taken; no weight moves in one that may not.

    A skipped step still counts, so that schedule, checkpoints and curves stay where they would have been.  After a
    rollback the data goes on, it is not seen again: restarting before the fault and passing over the rows that led to
    it is what helped in PaLM (Chowdhery et al. 2022, section 5.1).

    Args:
        model: What is trained.
        regularizer: Stands around it.
        policy: `stop`, `skip` or `rollback`.
        limit: Steps that may be skipped in a whole run; one more ends it.
        every: Steps between the states to go back to; each is kept in memory and in `last.ckpt`.
        report: Receives a line for each skipped step.

    Attributes:
        skipped_steps: How many so far.
        last_loss: Of the newest step that was taken.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        regularizer: Regularizer,
        *,
        policy: str = "stop",
        limit: int = 0,
        every: int = 1,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.regularizer, self.policy, self.limit, self.every, self.report = regularizer, policy, limit, every, report
        self.skipped_steps = 0
        self.last_loss = float("inf")
        self.saved_state: dict[str, Any] | None = None

    @classmethod
    def from_config(
        cls,
        config: CallbacksConfig,
        model: PreTrainedModel,
        regularizer: Regularizer,
        *,
        report: Callable[[str], None],
    ) -> Self:
        """The guard that `callbacks.on_nonfinite`, `nonfinite_limit` and `rollback_every` describe."""
        limit, every = config.nonfinite_limit, config.rollback_every
        return cls(model, regularizer, policy=config.on_nonfinite, limit=limit, every=every, report=report)

    def save_state_if_due(self, step: int, optimizer: Optimizer) -> None:
        """Save the state before a step for a rollback, where one is due and the loss has not grown too much."""
        if self.policy != "rollback" or (self.saved_state is not None and step % self.every):
            return
        if self.saved_state is not None and not self.last_loss <= MAX_LOSS_GROWTH * self.saved_state["loss"]:
            return
        self.saved_state = {
            "step": step,
            "loss": self.last_loss,
            "weights": {name: weight.detach().clone() for name, weight in self.weights.items()},
            "optimizer": deepcopy(optimizer.state_dict()),
            "regularizer": deepcopy(self.regularizer.state()),
        }

    def skip_step(self, fault: str, optimizer: Optimizer, scheduler: LambdaLR) -> None:
        """Let a step count without moving a weight; roll back under that policy.

        Args:
            fault: The fault of the step, with figures and a way out.
            optimizer: As Lightning wraps it, so that the step is counted.
            scheduler: Of its rate.

        Raises:
            Diverged: If the run ends here.
        """
        self.register_fault(fault)
        optimizer.zero_grad()
        no_loss = torch.zeros(())
        # neither decay nor momentum moves a weight that has no gradient
        optimizer.step(cast(Callable[[], float], lambda: no_loss))
        if self.saved_state is not None:
            self.roll_back(self.saved_state, scheduler)
        scheduler.step()

    def register_fault(self, fault: str) -> None:
        """Count and report a step that may not be taken.

        Raises:
            Diverged: If the run ends here.
        """
        if self.policy == "stop":
            raise Diverged(translate("stopped at {fault}", fault=fault))
        if self.skipped_steps >= self.limit:
            raise Diverged(
                translate(
                    "stopped at {fault}. {skipped_steps} [step was|steps were] skipped before "
                    "(callbacks.on_nonfinite={policy}), as many as callbacks.nonfinite_limit allows",
                    fault=fault,
                    skipped_steps=self.skipped_steps,
                    policy=self.policy,
                )
            )
        self.skipped_steps += 1
        self.report(
            translate(
                "skipped ({skipped_steps} of at most {limit}): {fault}",
                skipped_steps=self.skipped_steps,
                limit=self.limit,
                fault=fault,
            )
        )

    @torch.no_grad()
    def roll_back(self, saved: Mapping[str, Any], scheduler: LambdaLR) -> None:
        """Go back to a saved state, at half the present peak rate; the next step begins there."""
        optimizer = scheduler.optimizer
        for name, weight in self.weights.items():
            weight.copy_(saved["weights"][name])
        optimizer.load_state_dict(deepcopy(saved["optimizer"]))
        self.regularizer.load(deepcopy(saved["regularizer"]))
        scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
        for group, rate in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["initial_lr"] = rate  # the rate itself follows when the scheduler steps
        self.report(
            translate(
                "back to the state before step {step}; peak rate now {base_lrs:.3g}",
                step=saved["step"],
                base_lrs=scheduler.base_lrs[0],
            )
        )

    def state(self) -> dict[str, Any]:
        """Skipped steps, last loss and saved state, for a checkpoint to resume from."""
        return {"met": self.skipped_steps, "loss": self.last_loss, "kept": self.saved_state}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the state of a checkpoint; what it saved for a rollback counts only under that policy."""
        self.skipped_steps, self.last_loss = int(state["met"]), float(state["loss"])
        self.saved_state = state["kept"] if self.policy == "rollback" else None
