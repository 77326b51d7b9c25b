"""The device and the precision that a model trains in, and the model held there for a while."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import PreTrainedModel

from tunelab.config.schema import TrainerConfig


@dataclass(frozen=True)
class TrainingPlacement:
    """Where a model trains, and in which precision.

    Attributes:
        device: Of this process.
        precision: As Lightning names it.
    """

    device: torch.device
    precision: str

    @classmethod
    def from_config(cls, trainer: TrainerConfig) -> Self:
        """The placement that the `trainer` block asks for, on this machine."""
        return cls(select_training_device(trainer.accelerator), str(resolve_precision(trainer.precision)))

    def autocast(self) -> AbstractContextManager[object]:
        """A block in which a model computes in this precision; one of 64 bits must have such weights."""
        if self.precision.startswith("bf16"):
            return torch.autocast(self.device.type, torch.bfloat16)
        return double_numbers() if self.precision == "64-true" else nullcontext()

    @contextmanager
    def hold(self, model: PreTrainedModel) -> Iterator[None]:
        """Within this block a model is where it trains, in the precision it trains in."""
        training, home, kind = model.training, model.device, model.dtype
        numbers = self.autocast()
        if self.precision == "64-true":
            model.double()
        moves = home.type != self.device.type  # one in 4 bit is there already, and must not be moved
        if moves:
            model.to(self.device)  # type: ignore[arg-type]  # transformers widens the signature
        try:
            with numbers:
                yield
        finally:
            model.train(training)
            if model.dtype != kind:
                model.to(kind)  # type: ignore[arg-type]  # transformers widens the signature
            if moves:
                model.to(home)  # type: ignore[arg-type]


@contextmanager
def double_numbers() -> Iterator[None]:
    """Within it new tensors are float64, as Lightning has it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def place_model(model: PreTrainedModel, device: torch.device) -> None:
    """Bring a model to a device; one in 4 bit is there already, and must not be moved."""
    if model.device.type != device.type:
        model.to(device)  # type: ignore[arg-type]  # transformers widens the signature


def select_training_device(accelerator: str) -> torch.device:
    """The device this process will train on."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def resolve_precision(precision: str) -> Any:
    """The precision as Lightning names it; "auto" takes bfloat16 where the GPU computes in it."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
