"""L-BFGS on one step's gradient: several evaluations of the same rows, with a line search (Liu and Nocedal, 1989)."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import LBFGS as TorchLBFGS  # noqa: N811  # ours has the same name
from typing_extensions import override

from tunelab.config.schema import RunConfig
from tunelab.language.translation import translate


class LBFGS(TorchLBFGS):
    """PyTorch's L-BFGS, with decay of matrices as a penalty, half of `weight_decay` times their squared norm.

    The penalty belongs to what is minimised, so that loss and gradient agree and the line search stays exact.

    Args:
        params: Parameters or groups of them; they share one rate.
        lr: First length the line search tries.
        max_iter: Directions taken per step.
        history_size: Past steps that the curvature is estimated from.
        tolerance_grad: A step ends where no entry of the gradient is larger.
        tolerance_change: A step ends where it would change less.
    """

    needs_closure = True  # evaluates the step's loss again

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        max_iter: int = 4,
        history_size: int = 10,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
    ) -> None:
        entries = list(params)
        groups = entries if isinstance(entries[0], dict) else [{"params": entries}]
        self.decays: list[tuple[Parameter, float]] = [
            (weight, cast(float, group.get("weight_decay", 0))) for group in groups for weight in group["params"]
        ]
        super().__init__(
            [weight for group in groups for weight in group["params"]],
            lr=lr,
            max_iter=max_iter,
            history_size=history_size,
            tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change,
            line_search_fn="strong_wolfe",
        )

    @override
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Minimise the closure for a few directions.

        Args:
            closure: Leaves the gradient of the step in the parameters; returns its loss.
        """
        return super().step(lambda: self._penalised(closure))  # type: ignore[no-untyped-call]

    @staticmethod
    def config_faults(run: RunConfig) -> list[str]:
        """Settings that the line search does not allow: it compares the loss with the gradient, and has one rate."""
        faults = []
        if clip := run.trainer.gradient_clip_val:
            faults.append(
                translate(
                    "trainer.gradient_clip_val={clip}: a clipped gradient no longer fits the loss, and "
                    "the line search of optimizer=lbfgs compares the two; set trainer.gradient_clip_val=0",
                    clip=clip,
                )
            )
        if run.adapter.layer_decay != 1 or run.adapter.head_lr is not None or run.model.has_mup:
            faults.append(
                translate(
                    "optimizer=lbfgs has one rate for all parameters; leave adapter.layer_decay at 1, "
                    "adapter.head_lr at null and model.mup at false"
                )
            )
        return faults

    def reset_curvature(self) -> None:
        """Drop the curvature: the weights have been moved by something else, and differences of gradients mislead."""
        self.state.clear()

    def _penalised(self, closure: Callable[[], Any]) -> float:
        loss = float(closure().detach())
        with torch.no_grad():
            for weight, decay in self.decays:
                if decay and weight.grad is not None:
                    loss += decay / 2 * float(weight.square().sum())
                    weight.grad.add_(weight, alpha=decay)
        return loss


def closure_with_first_loss(first: Tensor, again: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A closure whose first answer, and the gradient that goes with it, are there already."""
    known = [first]
    return lambda: known.pop() if known else again()
