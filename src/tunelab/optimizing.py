"""From the blocks `optimizer` and `scheduler` to an optimizer and the curve of its rate."""

from collections.abc import Callable, Mapping
from inspect import isclass, signature
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from tunelab import build
from tunelab.errors import ConfigError
from tunelab.models.freeze import depths
from tunelab.optim.plateau import Plateau
from tunelab.optim.width_scaling import hidden_matrices
from tunelab.rates import learning, parameter_groups
from tunelab.settings import Run


def optimizer_maker(model: PreTrainedModel, settings: Run) -> Callable[[list[nn.Parameter]], Optimizer]:
    """What builds the optimizer, once the model stands where it trains."""
    block = settings.optimizer

    def make(parameters: list[nn.Parameter]) -> Optimizer:
        given: dict[str, Any] = {}
        if "hidden" in signature(build.find(str(block["_target_"]))).parameters:
            high = depths(model)
            given["hidden"] = hidden_matrices(learning(model), high.of, high.layers)
        made: Optimizer = build.make(block, **given)(parameter_groups(model, settings))
        return made

    return make


def refuse_optimizer(block: Mapping[str, Any], accelerator: str = "auto") -> None:
    """Stop a run whose optimizer cannot work here, before data and weights are read.

    Args:
        block: Of the optimizer.
        accelerator: What the run trains on.

    Raises:
        ConfigError: Naming the package, or the GPU, that is missing.
    """
    target = str(block["_target_"])
    name, instead = target.rpartition(".")[2], "optimizer=adamw takes the same steps with four times the memory"
    if package := build.lacking(target):
        raise ConfigError(
            f"{name} needs the package {package}, which is not installed: pip install {package}; {instead}"
        )
    if target.startswith("bitsandbytes.") and (accelerator == "cpu" or not torch.cuda.is_available()):
        lost = "and there is none here" if accelerator != "cpu" else "and trainer.accelerator=cpu uses none"
        raise ConfigError(f"{name} keeps its memory in 8 bit by kernels for a CUDA GPU, {lost}; {instead}")


def make_schedule(block: Mapping[str, Any], total: int) -> Callable[[int], float]:
    """The factor on the peak rate, from the optimizer step.

    A schedule with a memory is handed over as the object it is, so that its memory is saved with a run.
    """
    made = build.make(block, total=total)
    if isclass(build.find(str(block["_target_"]))):
        schedule: Callable[[int], float] = made()
        return schedule
    return lambda step: float(made(step))


def follows_validation(block: Mapping[str, Any]) -> bool:
    """Whether a schedule falls by what validations say."""
    return build.find(str(block["_target_"])) is Plateau
