"""AdamW without a falling rate: what is used is an average of the steps (Defazio et al. 2024, The Road Less Scheduled).

Three points: z takes plain steps, x is the average of all z, and gradients are taken at y, between the two.  The
parameters hold y.  What is validated, kept as best and exported is x.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from typing_extensions import override

from tunelab.config.schema import RunConfig
from tunelab.language.translation import translate


class ScheduleFreeAdamW(Optimizer):
    """Counts steps for each parameter by itself, so that one that joins late starts as carefully as the first.

    Args:
        params: Parameters or groups of them.
        lr: Rate; it rises, then stays.
        betas: Share of the average in y, above 0, and memory of the squared gradient.
        eps: Keeps a step finite where gradients vanish.
        weight_decay: Decoupled, at y.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})
        self.saved_weights: list[tuple[Parameter, Tensor]] = []  # y of each parameter, while it shows x

    @staticmethod
    def config_faults(run: RunConfig) -> list[str]:
        """A first `beta` of 0: the gradient would be taken where no average is."""
        betas = run.optimizer.arguments.get("betas")
        if isinstance(betas, list) and betas and betas[0] == 0:
            return [
                translate(
                    "optimizer.betas: the first is the average's share in schedule_free_adamw; it must be above 0"
                )
            ]
        return []

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update_parameter(weight, group)
        return loss

    def _update_parameter(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2), lr = self.state[weight], group["betas"], group["lr"]
        if not state:
            state |= {"step": 0, "weights": 0.0, "highest": 0.0, "z": weight.clone()}
            state["square"] = torch.zeros_like(weight)
        assert weight.grad is not None
        state["step"] += 1
        state["highest"] = max(state["highest"], lr)
        square = state["square"].mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
        denominator = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        direction = (weight.grad / denominator).add_(weight, alpha=group["weight_decay"])
        state["weights"] += state["highest"] ** 2  # steps of the warm-up count less in the average
        share = self._average_weight(state)
        weight.lerp_(state["z"], share).add_(direction, alpha=lr * (beta1 * (1 - share) - 1))
        state["z"].sub_(direction, alpha=lr)

    @torch.no_grad()
    def move_average(self, weight: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Change z, where the step just taken has led, as if it had led there: x and y follow.

        Args:
            weight: A parameter that has been stepped.
            change: From a tensor of its shape to its new value.

        Returns:
            The new z.
        """
        state = self.state[weight]
        beta1 = next(group["betas"][0] for group in self.param_groups if any(weight is p for p in group["params"]))
        changed: Tensor = change(state["z"])
        weight.add_(changed - state["z"], alpha=1 - beta1 * (1 - self._average_weight(state)))
        state["z"].copy_(changed)
        return changed

    @staticmethod
    def _average_weight(state: dict[str, Any]) -> float:
        """The weight of the last step in the average."""
        return float(state["highest"] ** 2 / state["weights"]) if state["weights"] else 0.0

    @torch.no_grad()
    def averages(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Each parameter that has been stepped, with its average x; its shape and kind are the parameter's."""
        if self.saved_weights:
            yield from ((weight, weight.detach()) for weight, _ in self.saved_weights)
            return
        for group in self.param_groups:
            for weight in group["params"]:
                if state := self.state.get(weight):
                    yield weight, torch.lerp(weight, state["z"], 1 - 1 / group["betas"][0])

    def trained_weights(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Each parameter that shows its average, with the y that training goes on from."""
        yield from self.saved_weights

    @torch.no_grad()
    def swap_in_averages(self) -> None:
        """Put x into the parameters; y is kept bit by bit, since computing it back would round."""
        if not self.saved_weights:
            averages = list(self.averages())
            self.saved_weights = [(weight, weight.detach().clone()) for weight, _ in averages]
            for weight, average in averages:
                weight.copy_(average)

    @torch.no_grad()
    def swap_in_trained(self) -> None:
        """Put y back."""
        for weight, before in self.saved_weights:
            weight.copy_(before)
        self.saved_weights = []
