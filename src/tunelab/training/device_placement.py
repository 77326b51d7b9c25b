"""The model on the training device and in the training precision, and what is computed there before training:
packing, reference log-probabilities.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DoublePrecision
from transformers import PreTrainedModel

from tunelab.config.schema import CausalDataConfig, RunConfig
from tunelab.data.examples import Example
from tunelab.models.packing_support import available_kernels, enable_packing
from tunelab.tasks.base import Task
from tunelab.tasks.causal import CausalTask
from tunelab.training.trainer import resolve_precision


def add_reference_logprobs(
    settings: RunConfig, task: Task, model: PreTrainedModel, examples: Mapping[str, Sequence[Example]]
) -> dict[str, Sequence[Example]]:
    """Examples of every split, with log-probabilities of the untrained model where the task needs them.

    The model comes from `build_model`, never from a checkpoint, so a run that goes on gets the same numbers.
    """
    if not task.needs_reference:
        return dict(examples)
    with on_training_device(model, settings), adapter_disabled(model):
        model.eval()  # no dropout; `on_training_device` puts the mode back
        return {
            name: task.add_reference(model, split_examples, settings.micro_tokens)
            for name, split_examples in examples.items()
        }


@contextmanager
def on_training_device(model: PreTrainedModel, settings: RunConfig) -> Iterator[None]:
    """Within this block the model is where it trains, in the precision it trains in."""
    training, home, kind = model.training, model.device, model.dtype
    place = select_training_device(str(settings.trainer.accelerator))
    precision = str(resolve_precision(settings.trainer.precision))
    numbers: AbstractContextManager[object] = nullcontext()
    if precision.startswith("bf16"):
        numbers = torch.autocast(place.type, torch.bfloat16)
    elif precision == "64-true":  # as Lightning does
        model.double()
        numbers = DoublePrecision().forward_context()
    moves = home.type != place.type  # one in 4 bit is there already, and must not be moved
    if moves:
        model.to(place)  # type: ignore[arg-type]  # transformers widens the signature
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
def adapter_disabled(model: PreTrainedModel) -> Iterator[None]:
    """Within this block every layer that PEFT put into the model gives what the base gives."""
    layers: list[Any] = [layer for layer in model.modules() if type(layer).__module__.startswith("peft.")]
    layers = [layer for layer in layers if hasattr(layer, "enable_adapters")]
    learns = [(weight, weight.requires_grad) for weight in model.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for weight, before in learns:  # PEFT switches on all it switched off, frozen weights too
            weight.requires_grad_(before)


def select_training_device(accelerator: str) -> torch.device:
    """The device this process will train on."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def choose_packing(settings: RunConfig, task: Task, model: PreTrainedModel) -> None:
    """Choose the rows of a causal task, and give the model the attention they need; other tasks pad.

    Raises:
        ConfigError: If the settings demand what this model cannot do.
    """
    if isinstance(task, CausalTask):
        device = select_training_device(settings.trainer.accelerator)
        half = str(resolve_precision(settings.trainer.precision)).startswith("bf16")
        task.packed = enable_packing(
            model,
            packing=settings.data.packing if isinstance(settings.data, CausalDataConfig) else "auto",
            attention=settings.model.attention,
            kernels=available_kernels(device.type, half=half),
            loops=device.type != "cuda",
            at_work=lambda: on_training_device(model, settings),
        )
