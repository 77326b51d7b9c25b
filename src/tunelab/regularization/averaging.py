"""Averages of the weights along a run: what is validated, kept as best and exported in place of the last step's.

EMA forgets (Polyak and Juditsky 1992; decay and warm-up as in TensorFlow's ExponentialMovingAverage), SWA counts every
step of the last part alike (Izmailov et al. 2018, Averaging Weights Leads to Wider Optima).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from tunelab.models.sharding import shard_like

AverageShare = Callable[
    [int, int], float | None
]  # steps seen and steps in the average to the new step's share; None: wait


def ema_share(decay: float) -> AverageShare:
    """Share of a new step in a moving average.  The decay warms up, so that the first weights are soon forgotten."""
    return lambda seen, counted: 1 - min(decay, (1 + counted) / (10 + counted))


def swa_share(first: int) -> AverageShare:
    """Share of a new step in a plain mean of all steps after the first `first` ones."""
    return lambda seen, counted: 1 / (1 + counted) if seen > first else None


class WeightAverage:
    """The average of parameters, and the switch that shows it in their place.

    Args:
        named: The parameters that learn, by name.
        share: How much a new step counts.
    """

    def __init__(self, named: Mapping[str, Parameter], share: AverageShare) -> None:
        self.named, self.share = named, share
        self.seen_steps = self.averaged_steps = 0
        self.swapped_in = False
        self.average_values: dict[str, Tensor] = {}  # the average; while it is in the model, the trained weights

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of the step just taken."""
        self.seen_steps += 1
        share = self.share(self.seen_steps, self.averaged_steps)
        if share is None:
            return
        if self.averaged_steps == 0:
            self.average_values = {name: weight.detach().clone() for name, weight in self.named.items()}
        else:
            torch._foreach_lerp_([value for _, value in self._pairs()], list(self.named.values()), share)
        self.averaged_steps += 1

    def averages(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Each parameter with its average; none before the first step that counts."""
        return ((weight, weight.detach() if self.swapped_in else value) for weight, value in self._pairs())

    def trained_weights(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Each parameter that shows its average, with the weights that training goes on from."""
        return iter(self._pairs() if self.swapped_in else [])

    def swap_in_averages(self) -> None:
        """Put the average into the parameters."""
        if not self.swapped_in:
            self._swap()
            self.swapped_in = True

    def swap_in_trained(self) -> None:
        """Put the trained weights back, bit by bit."""
        if self.swapped_in:
            self._swap()
            self.swapped_in = False

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, value in self._pairs():
            before = weight.clone()
            weight.copy_(value)
            value.copy_(before)

    def _pairs(self) -> list[tuple[Parameter, Tensor]]:
        if self.average_values:  # a checkpoint is read before the model moves to its device
            self.average_values = {
                name: self.average_values[name].to(weight.device) for name, weight in self.named.items()
            }
        return [(weight, self.average_values[name]) for name, weight in self.named.items() if self.average_values]

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs: the average, whichever weights are in the model."""
        names = list(self.named) if self.average_values else []
        values = {name: value for name, (_, value) in zip(names, self.averages(), strict=True)}
        return {"seen": self.seen_steps, "counted": self.averaged_steps, "values": values}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, before any step."""
        self.seen_steps, self.averaged_steps, self.average_values = (
            int(state["seen"]),
            int(state["counted"]),
            {name: shard_like(value, self.named[name]) for name, value in state["values"].items()},
        )


@runtime_checkable
class WeightAverager(Protocol):
    """Keeps an average of parameters, and can put it in their place."""

    def averages(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Each parameter that has one, with its average."""

    def trained_weights(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Each parameter that shows its average, with the weights that training goes on from."""

    def swap_in_averages(self) -> None:
        """Put the averages into the parameters."""

    def swap_in_trained(self) -> None:
        """Put the trained weights back, bit by bit."""


def swap_averaged_weights(optimizers: Iterable[object], *, averages: bool) -> None:
    """Put averages into the parameters, or the trained weights back, bit by bit.

    Args:
        optimizers: All of them, and averages kept beside them; those without averages are passed over.
        averages: Which of the two.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, WeightAverager):
            if averages:
                optimizer.swap_in_averages()
            else:
                optimizer.swap_in_trained()


def checkpoint_weights(
    optimizers: Iterable[object], weights: Mapping[str, Tensor], module: nn.Module, *, averages: bool
) -> dict[str, Tensor]:
    """Weights as a checkpoint needs them, whichever are in the model: averages to be used, trained ones to go on from.

    Args:
        optimizers: All of them, and averages kept beside them.
        weights: Of the module, by name.
        module: Has the parameters, each under all its names.
        averages: Which of the two.
    """
    values = {
        id(weight): value
        for optimizer in optimizers
        if isinstance(optimizer, WeightAverager)
        for weight, value in (optimizer.averages() if averages else optimizer.trained_weights())
    }
    own = dict(module.named_parameters(remove_duplicate=False))
    return {name: values.get(id(own.get(name)), weight) for name, weight in weights.items()}
