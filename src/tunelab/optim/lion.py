"""Lion: steps by the sign of a momentum (Chen et al. 2023, Symbolic Discovery of Optimization Algorithms)."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from typing_extensions import override


class Lion(Optimizer):
    """Every entry moves by exactly `lr`, so rates are a third to a tenth of AdamW's.

    Args:
        params: Parameters or groups of them.
        lr: Rate.
        betas: Share of the momentum in the direction of a step, and memory of the momentum itself.
        weight_decay: Decoupled, as in AdamW.
    """

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            direction, memory = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(torch.lerp(weight.grad, momentum, direction).sign_(), alpha=-group["lr"])
                momentum.lerp_(weight.grad, 1 - memory)
        return loss
