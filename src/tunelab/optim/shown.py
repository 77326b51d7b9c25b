"""Which weights a model shows: those that are trained, or their average where an optimizer or a run keeps one."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Parameter


@runtime_checkable
class Averaging(Protocol):
    """Keeps an average of parameters, and can put it in their place."""

    def averages(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Each parameter that has one, with its average."""

    def trained(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Each parameter that shows its average, with the weights that training goes on from."""

    def show_averages(self) -> None:
        """Put the averages into the parameters."""

    def show_trained(self) -> None:
        """Put the trained weights back, bit by bit."""


def show(optimizers: Iterable[object], *, averages: bool) -> None:
    """Put averages into the parameters, or the trained weights back, bit by bit.

    Args:
        optimizers: All of them, and averages kept beside them; those without averages are passed over.
        averages: Which of the two.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, Averaging):
            if averages:
                optimizer.show_averages()
            else:
                optimizer.show_trained()


def saved(optimizers: Iterable[object], weights: Mapping[str, Tensor], *, averages: bool) -> dict[str, Tensor]:
    """Weights as a checkpoint needs them, whichever are shown: averages to be used, trained ones to go on from.

    Args:
        optimizers: All of them, and averages kept beside them.
        weights: Of a model, by name; they share their memory with its parameters.
        averages: Which of the two.
    """
    wanted = {
        weight.data_ptr(): value
        for optimizer in optimizers
        if isinstance(optimizer, Averaging)
        for weight, value in (optimizer.averages() if averages else optimizer.trained())
    }
    return {name: wanted.get(weight.data_ptr(), weight) for name, weight in weights.items()}
