"""The guard against a loss or gradient that is not finite: end the run, skip the step, or roll back."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Self, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from tunelab.errors import Diverged
from tunelab.regularization.regularizer import Regularizer

NONFINITE_POLICIES = ("stop", "skip", "rollback")
MAX_LOSS_GROWTH = 2.0  # a loss this many times that of the state kept last is no state to go back to


class NonFiniteGuard:
    """Decides before each optimizer step whether it may be taken; no weight moves in one that may not.

    A step left out still counts, so that schedule, checkpoints and curves stay where they would have been.  After a
    rollback the data goes on, it is not seen again: restarting before the fault and passing over the rows that led to
    it is what helped in PaLM (Chowdhery et al. 2022, section 5.1).

    Args:
        model: What is trained.
        regularizer: Stands around it.
        kind: `stop`, `skip` or `rollback`.
        limit: Steps that may be left out in a whole run; one more ends it.
        every: Steps between the states to go back to; each is kept in memory and in `last.ckpt`.
        tell: Receives a line for each step left out.

    Attributes:
        met: Steps left out so far.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        regularizer: Regularizer,
        *,
        kind: str = "stop",
        limit: int = 0,
        every: int = 1,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.regularizer, self.kind, self.limit, self.every, self.tell = regularizer, kind, limit, every, tell
        self.met = 0
        self.loss = float("inf")  # of the newest step that was taken
        self.kept: dict[str, Any] | None = None

    @classmethod
    def of(
        cls,
        wanted: Mapping[str, Any],
        model: PreTrainedModel,
        regularizer: Regularizer,
        *,
        tell: Callable[[str], None],
    ) -> Self:
        """What the settings `callbacks.on_nonfinite`, `nonfinite_limit` and `rollback_every` ask for."""
        kind, limit, every = wanted["on_nonfinite"], wanted["nonfinite_limit"], wanted["rollback_every"]
        return cls(model, regularizer, kind=str(kind), limit=int(limit), every=int(every), tell=tell)

    def remember(self, step: int, optimizer: Optimizer) -> None:
        """Keep the state before a step where one is due, unless the loss says that it is already going wrong."""
        if self.kind != "rollback" or (self.kept is not None and step % self.every):
            return
        if self.kept is not None and not self.loss <= MAX_LOSS_GROWTH * self.kept["loss"]:
            return
        self.kept = {
            "step": step,
            "loss": self.loss,
            "weights": {name: weight.detach().clone() for name, weight in self.weights.items()},
            "optimizer": deepcopy(optimizer.state_dict()),
            "regularizer": deepcopy(self.regularizer.state()),
        }

    def leave_out(self, fault: str, optimizer: Optimizer, scheduler: LambdaLR) -> None:
        """Let a step count without moving a weight; go back where that is wanted.

        Args:
            fault: What is wrong with it, with figures and a way out.
            optimizer: As Lightning wraps it, so that the step is counted.
            scheduler: Of its rate.

        Raises:
            Diverged: If the run ends here.
        """
        self.meet(fault)
        optimizer.zero_grad()
        nothing = torch.zeros(())
        # neither decay nor momentum moves a weight that has no gradient
        optimizer.step(cast(Callable[[], float], lambda: nothing))
        if self.kept is not None:
            self.recover(self.kept, scheduler)
        scheduler.step()

    def meet(self, fault: str) -> None:
        """Take note of a step that may not be taken.

        Raises:
            Diverged: If the run ends here.
        """
        if self.kind == "stop":
            raise Diverged(f"stopped at {fault}")
        if self.met >= self.limit:
            raise Diverged(
                f"stopped at {fault}. {self.met} steps were left out before (callbacks.on_nonfinite={self.kind}), "
                "as many as callbacks.nonfinite_limit allows"
            )
        self.met += 1
        self.tell(f"left out ({self.met} of at most {self.limit}): {fault}")

    @torch.no_grad()
    def recover(self, kept: Mapping[str, Any], scheduler: LambdaLR) -> None:
        """Go back to a state, at half the present peak rate; the next step begins there."""
        optimizer = scheduler.optimizer
        for name, weight in self.weights.items():
            weight.copy_(kept["weights"][name])
        optimizer.load_state_dict(deepcopy(kept["optimizer"]))
        self.regularizer.load(deepcopy(kept["regularizer"]))
        scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
        for group, rate in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["initial_lr"] = rate  # the rate itself follows when the scheduler steps
        self.tell(f"back to the state before step {kept['step']}; peak rate now {scheduler.base_lrs[0]:.3g}")

    def state(self) -> dict[str, Any]:
        """What a run that goes on must know."""
        return {"met": self.met, "loss": self.loss, "kept": self.kept}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; one to go back to counts only where that is still wanted."""
        self.met, self.loss = int(state["met"]), float(state["loss"])
        self.kept = state["kept"] if self.kind == "rollback" else None
