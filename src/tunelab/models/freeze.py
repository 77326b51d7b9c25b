"""Which weights learn: by parts of their names, and by how high in the network they stand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from tunelab.errors import ConfigError

EMBEDDING = ("embed", "wte", "wpe", "project_in")  # how the parts of names below the layers begin


@dataclass(frozen=True)
class Depths:
    """How high each parameter stands.

    Attributes:
        of: By parameter name: 0 embeddings; 1 to `layers` the layers, lowest first; `layers` + 1 what follows them
            (the last norm); `layers` + 2 the head.
        layers: How many layers there are; 0 where no stack of them was found.
    """

    of: Mapping[str, int]
    layers: int

    @property
    def head(self) -> int:
        """The depth of the head."""
        return self.layers + 2

    def name(self, depth: int) -> str:
        """A depth in words."""
        words = {0: "embeddings", self.layers + 1: "last norm", self.head: "head"}
        return words.get(depth, f"layer {depth}")


def depths(model: PreTrainedModel) -> Depths:
    """Read off a model, adapters included, how high each of its parameters stands."""
    stack, layers = layer_stack(model)
    body = f"{model.base_model_prefix}."

    def depth(name: str) -> int:
        if stack and name.startswith(f"{stack}."):
            return int(name[len(stack) + 1 :].partition(".")[0]) + 1
        parts = name.split(".")
        if not name.startswith(body) or "pooler" in parts:
            return layers + 2
        return 0 if any(part.startswith(EMBEDDING) for part in parts) else layers + 1

    return Depths({name: depth(name) for name, _ in model.named_parameters()}, layers)


def layer_stack(model: PreTrainedModel) -> tuple[str, int]:
    """Name and length of the list of layers: the outermost one that is as long as the architecture says."""
    wanted = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        (name, len(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == wanted
    ]
    return min(found, key=lambda entry: len(entry[0]), default=("", 0))


def freeze(model: PreTrainedModel, patterns: Sequence[str]) -> None:
    """Keep the parameters as they are whose name holds one of `patterns`; what else learns is left alone.

    Raises:
        ConfigError: If a pattern meets no parameter, or nothing is left to train.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if lost := unmet(names, patterns):
        raise ConfigError(f"adapter.freeze={lost}: {nothing_like_it(names)}")
    for name, parameter in model.named_parameters():
        if any(pattern in name for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"adapter.freeze={list(patterns)} leaves nothing to train; name fewer parts")


def train_only(model: PreTrainedModel, learns: Callable[[str], bool]) -> None:
    """Let those parameters learn whose name `learns` accepts, and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learns(name))


def unmet(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The patterns that are part of no name."""
    return [pattern for pattern in patterns if not any(pattern in name for name in names)]


def nothing_like_it(names: Sequence[str]) -> str:
    """What a pattern could have met."""
    return f"no trained parameter has that in its name; there is {', '.join(names[:6])}, ..."
