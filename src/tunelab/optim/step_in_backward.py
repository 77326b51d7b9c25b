"""Optimizer steps within the backward pass: each weight is stepped as soon as its gradient is whole, which then goes.

So the gradients of all weights never stand side by side (Lv et al. 2023, LOMO, for any optimizer that treats each
weight by itself).  The steps are those of one call for all weights.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class StepInBackward:
    """Steps weights one by one, for as long as `at_work` holds.

    Args:
        optimizer: Steps each weight by itself.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.group_of = {weight: group for group in optimizer.param_groups for weight in group["params"]}
        self.norms = list[Tensor]()

    @contextmanager
    def at_work(self, frozen: Iterable[nn.Parameter]) -> Iterator[None]:
        """Within this block a backward pass steps all weights but those that do not learn yet."""
        still = set(frozen)
        handles = [
            weight.register_post_accumulate_grad_hook(self._step) for weight in self.group_of if weight not in still
        ]
        self.norms = []
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _step(self, weight: Tensor) -> None:
        """Step one weight, and let go of its gradient."""
        assert isinstance(weight, nn.Parameter) and weight.grad is not None
        self.norms.append(torch.linalg.vector_norm(weight.grad))
        groups = self.optimizer.param_groups
        self.optimizer.param_groups = [{**self.group_of[weight], "params": [weight]}]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
        weight.grad = None

    def norm(self) -> Tensor:
        """The norm of the gradient that the last pass has stepped along."""
        return torch.linalg.vector_norm(torch.stack(self.norms)) if self.norms else torch.zeros(())
