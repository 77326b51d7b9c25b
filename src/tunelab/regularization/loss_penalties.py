"""Penalties of one's own in the loss: functions of the model, one value for each optimizer step.

Those of the block `regularization` that change weights after the step lie in `penalties.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import isclass, signature

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.config.instantiate import import_target
from tunelab.config.schema import RegularizationConfig, TargetConfig
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.models.sharding import gather_full, reshard

PenaltyFunction = Callable[[PreTrainedModel, float], object]  # of the model and the share of the run that is done


@dataclass
class LossPenalties:
    """The penalties of `regularization.NAME={_target_: ...}`, added to the loss of each optimizer step.

    Attributes:
        functions: By name; each gives a scalar tensor.
        total_steps: Optimizer steps of the run.
        values: Of each penalty at the step just computed.
    """

    functions: Mapping[str, PenaltyFunction] = field(default_factory=dict)
    total_steps: int = 0
    values: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: RegularizationConfig, model: PreTrainedModel, total_steps: int) -> "LossPenalties":
        """The penalties that the block `regularization` names.

        Args:
            config: The block.
            model: As it is before training.
            total_steps: Optimizer steps of the run.

        Raises:
            ConfigError: If one cannot be made.
        """
        functions = {
            name: penalty_function(f"regularization.{name}", target, model) for name, target in config.targets.items()
        }
        return cls(functions, total_steps)

    def compute(self, model: PreTrainedModel, step: int) -> Tensor | float:
        """The sum of all penalties at an optimizer step, with a graph; keeps the value of each.

        Raises:
            ConfigError: If one gives no number.
        """
        sum_of_all: Tensor | float = 0.0
        if self.functions:
            reshard(model)
        with torch.autocast(model.device.type, enabled=False):  # weights are compared in their own precision
            for name, function in self.functions.items():
                value = function(model, step / max(self.total_steps, 1))
                value = gather_full(value) if isinstance(value, Tensor) else value
                if isinstance(value, int | float):
                    value = torch.tensor(float(value), device=model.device)
                if not isinstance(value, Tensor) or value.numel() != 1:
                    kind = (
                        translate("a tensor of shape {shape}", shape=tuple(value.shape))
                        if isinstance(value, Tensor)
                        else repr(value)
                    )
                    raise ConfigError(
                        translate(
                            "regularization.{name} gave {kind}; a penalty is one number, such as .sum()",
                            name=name,
                            kind=kind,
                        )
                    )
                self.values[name] = value.detach().reshape(())
                sum_of_all = sum_of_all + value.reshape(())
        return sum_of_all

    def total(self) -> Tensor | float:
        """The sum of all penalties at the step just computed, without a graph."""
        return sum(self.values.values(), start=0.0)


def penalty_function(where: str, target: TargetConfig, model: PreTrainedModel) -> PenaltyFunction:
    """The function of the model that a target names: itself, or what its class makes.

    `progress`, and `model` of a class that remembers the weights before training, are handed to what names them.

    Raises:
        ConfigError: If a class refuses its arguments, or makes nothing that can be called.
    """
    named = import_target(target.target, "regularization")
    arguments = dict(target.arguments)
    penalty: Callable[..., object] = partial(named, **arguments)
    try:
        if isclass(named):
            made = named(**({"model": model} if "model" in signature(named).parameters else {}), **arguments)
            if not callable(made):
                raise ConfigError(
                    translate(
                        "{where}: {target} makes nothing that can be called; give it __call__(model)",
                        where=where,
                        target=target.target,
                    )
                )
            penalty = made
        parameters = signature(penalty.forward if isinstance(penalty, nn.Module) else penalty)
        takes_progress = "progress" in parameters.parameters
        parameters.bind(model, **({"progress": 0.0} if takes_progress else {}))
    except (TypeError, ValueError) as fault:
        raise ConfigError(
            translate(
                "{where}: {target} refuses its arguments: {fault}",
                where=where,
                target=target.target,
                fault=first_line(fault),
            )
        ) from fault
    return lambda model, progress: penalty(model, **({"progress": progress} if takes_progress else {}))
