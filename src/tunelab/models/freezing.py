"""Freezing: which parameters are trained, by name and by depth, and the state of those alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.errors import ConfigError
from tunelab.language.translation import translate

EMBEDDING_PREFIXES = ("embed", "wte", "wpe", "project_in")  # how the parts of names below the layers begin


@dataclass(frozen=True)
class ParameterDepths:
    """The depth of each parameter in the network.

    Attributes:
        by_name: 0 embeddings; 1 to `layers` the layers, lowest first; `layers` + 1 what follows them
            (the last norm); `layers` + 2 the head.
        layers: The number of layers; 0 without a stack of layers.
    """

    by_name: Mapping[str, int]
    layers: int

    @property
    def head_depth(self) -> int:
        """The depth of the head."""
        return self.layers + 2

    def name(self, depth: int) -> str:
        """A depth in words."""
        words = {0: "embeddings", self.layers + 1: "last norm", self.head_depth: "head"}
        return words.get(depth, f"layer {depth}")


def parameter_depths(model: PreTrainedModel) -> ParameterDepths:
    """The depth of each parameter of a model, adapters included."""
    stack, layers = layer_stack(model)
    body = f"{model.base_model_prefix}."

    def depth(name: str) -> int:
        if stack and name.startswith(f"{stack}."):
            return int(name[len(stack) + 1 :].partition(".")[0]) + 1
        parts = name.split(".")
        if not name.startswith(body) or "pooler" in parts:
            return layers + 2
        return 0 if any(part.startswith(EMBEDDING_PREFIXES) for part in parts) else layers + 1

    return ParameterDepths({name: depth(name) for name, _ in model.named_parameters()}, layers)


def layer_stack(model: PreTrainedModel) -> tuple[str, int]:
    """Name and length of the list of layers: the outermost one that is as long as the architecture says."""
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    stacks = [
        (name, len(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers
    ]
    return min(stacks, key=lambda entry: len(entry[0]), default=("", 0))


def freeze_parameters(model: PreTrainedModel, patterns: Sequence[str]) -> None:
    """Freeze the parameters whose name contains one of `patterns`.

    Raises:
        ConfigError: If a pattern matches no parameter, or nothing is left to train.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if lost := unmatched_patterns(names, patterns):
        raise ConfigError(translate("adapter.freeze={lost}: {names}", lost=lost, names=no_match_message(names)))
    for name, parameter in model.named_parameters():
        if any(pattern in name for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            translate("adapter.freeze={patterns} leaves nothing to train; name fewer parts", patterns=list(patterns))
        )


def train_only(model: PreTrainedModel, learns: Callable[[str], bool]) -> None:
    """Train the parameters whose name `learns` accepts; freeze all others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learns(name))


def unmatched_patterns(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The patterns that no name contains."""
    return [pattern for pattern in patterns if not any(pattern in name for name in names)]


def no_match_message(names: Sequence[str]) -> str:
    """The end of a message about a pattern that matches nothing: names that it could match."""
    return translate("no trained parameter has that in its name; there is {names}, ...", names=", ".join(names[:6]))


def frozen_keys(module: nn.Module) -> set[str]:
    """Keys of the parameters that do not learn, under every name they have."""
    return {name for name, weight in module.named_parameters(remove_duplicate=False) if not weight.requires_grad}


def trainable_state(module: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A state without frozen parameters, and without what describes them (the constants of 4-bit weights)."""
    frozen = frozen_keys(module)
    return {
        key: value
        for key, value in state.items()
        if key not in frozen and not any(key.startswith(f"{name}.") for name in frozen)
    }


def load_trainable_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state that may lack frozen parameters, but no trained one.

    Raises:
        RuntimeError: If something that learns is missing, or the state holds what the module does not know.
    """
    result = nn.Module.load_state_dict(module, state, strict=False)
    missing = trainable_state(module, dict.fromkeys(result.missing_keys))
    faults = [translate("missing: {key}", key=key) for key in missing] + [
        translate("unknown: {key}", key=key) for key in result.unexpected_keys
    ]
    if faults:
        more = translate(" and {count} more", count=len(faults) - 3) if len(faults) > 3 else ""
        raise RuntimeError(
            translate(
                "the weights belong to another model or adapter; {names}{more}", names=", ".join(faults[:3]), more=more
            )
        )
