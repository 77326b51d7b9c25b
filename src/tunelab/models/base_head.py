"""The head that a base model brings: its rows are kept by label, never by shape.

Shape letters: C labels or targets, H hidden.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.heads import output_linear

MAX_LISTED_NAMES = 8  # names of labels in one note before it stops with a count


@dataclass(frozen=True)
class Head:
    """What the outputs of a model mean.

    Attributes:
        labels: Their names, C of them, in order.
        regression: Whether they are numbers.
        mean, std: `output * std + mean` is in units, C each.
    """

    labels: tuple[str, ...]
    regression: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> Self:
        """The head that an architecture describes."""
        names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
        labels = tuple(names[index] for index in sorted(names))
        kind = getattr(config, "problem_type", None)
        mean, std = getattr(config, "target_mean", None), getattr(config, "target_std", None)
        if not mean or not std:
            mean, std = [0.0] * len(labels), [1.0] * len(labels)
        return cls(labels, kind == "regression" or (kind is None and len(labels) == 1), tuple(mean), tuple(std))

    @property
    def unnamed(self) -> bool:
        """Whether the labels are those that transformers makes up where a config names none."""
        return self.labels == tuple(f"LABEL_{index}" for index in range(len(self.labels)))

    def rows_for(self, ours: "Head") -> list[int] | None:
        """The row of this head for each label of ours; None where one has no row.

        Names are compared as they are written, else without regard to capitals.  The labels 0, 1, ... mean the rows
        of a head that names none.
        """
        if self.regression != ours.regression:
            return None
        numbers = [str(index) for index in range(len(self.labels))]
        if self.unnamed:
            return list(range(len(numbers))) if list(ours.labels) == numbers and not self.regression else None
        for fold in (str, lambda name: name.strip().casefold()):
            known, needed = [fold(name) for name in self.labels], [fold(name) for name in ours.labels]
            if len(set(known)) == len(known) and len(set(needed)) == len(needed) and set(needed) <= set(known):
                return [known.index(name) for name in needed]
        return None

    def describe(self) -> str:
        """What the outputs are, in words; of many labels the first few."""
        more = (
            translate(" and {count} more", count=len(self.labels) - MAX_LISTED_NAMES)
            if len(self.labels) > MAX_LISTED_NAMES
            else ""
        )
        kind = translate("the number") if self.regression else translate("the labels")
        return f"{kind} {', '.join(self.labels[:MAX_LISTED_NAMES])}{more}"


def adopt_base_head(
    model: PreTrainedModel, base: Head, options: Mapping[str, Any], *, absent: Mapping[str, bool]
) -> str | None:
    """Give a model that was loaded from a base the head of this run.

    Args:
        model: Changed in place; its config says how many outputs it was loaded with.
        base: The head of the base.
        options: What the task requires of the head, for the config.
        absent: Names of the weights that are new, and whether the base has one of another shape.

    Returns:
        A note that says what was kept; None where the base has no head.

    Raises:
        ConfigError: If the layer that gives the outputs cannot be found.
    """
    layer = output_linear(model, len(model.config.id2label or {}))
    for name, value in options.items():
        setattr(model.config, name, value)
    ours = Head.from_config(model.config)
    if layer is None:
        raise ConfigError(
            translate(
                "the layer that gives the outputs of {model} cannot be told from the others, so "
                "its rows cannot be matched with {labels}; start from the model without its head",
                model=type(model).__name__,
                labels=ours.describe(),
            )
        )
    rows, other_shape = base.rows_for(ours), absent.get(f"{module_name(model, layer)}.weight")
    same = (
        other_shape is None and rows == list(range(len(base.labels))) and (base.mean, base.std) == (ours.mean, ours.std)
    )
    if not same and (other_shape is None or layer.out_features != len(ours.labels)):
        new = nn.Linear(layer.in_features, len(ours.labels), bias=layer.bias is not None, device=layer.weight.device)
        if rows is None or other_shape is not None:
            rows = None
            getattr(model, "_init_weights")(new)  # noqa: B009  # of the family, as for any new head
        else:
            copy_rows(layer, new, rows, base, ours)
        parent, _, last = module_name(model, layer).rpartition(".")
        setattr(model.get_submodule(parent), last, new)
    vars(model)["num_labels"] = len(ours.labels)
    return None if other_shape is False else head_note(base, ours, rows)


def module_name(model: nn.Module, module: nn.Module) -> str:
    """The dotted name of a module of a model."""
    names: dict[int, str] = {id(other): name for name, other in model.named_modules()}
    return names[id(module)]


def copy_rows(old: nn.Linear, new: nn.Linear, rows: Sequence[int], base: Head, ours: Head) -> None:
    """Fill a layer with rows of another one; of numbers, so that it gives the same values in their own units."""
    with torch.no_grad():
        new.weight.copy_(old.weight[list(rows)])
        if new.bias is not None:
            new.bias.copy_(old.bias[list(rows)])
        before = [(base.mean[row], base.std[row]) for row in rows]
        if before == list(zip(ours.mean, ours.std, strict=True)):
            return
        scales = torch.tensor([std / own for (_, std), own in zip(before, ours.std, strict=True)])  # (C,)
        new.weight.mul_(scales[:, None])
        if new.bias is not None:  # a head without one leaves the shift to training
            shifts = [(mean - own) / std for (mean, _), own, std in zip(before, ours.mean, ours.std, strict=True)]
            new.bias.mul_(scales).add_(torch.tensor(shifts))


def head_note(base: Head, ours: Head, rows: Sequence[int] | None) -> str:
    """What became of the head of the base."""
    if rows is None and base.unnamed:
        return translate(
            "the head is new: the config of the base names no labels, so which of its rows means which cannot be told"
        )
    if rows is None:
        return translate(
            "the head is new: the base's gives {labels}, and this run learns {others}",
            labels=base.describe(),
            others=ours.describe(),
        )
    if base.unnamed:
        return translate(
            "the head of the base is kept; its config names no labels, so its rows are taken as {labels}",
            labels=ours.describe(),
        )
    if len(rows) < len(base.labels):
        return translate(
            "of the head of the base the rows of {labels} are kept, by name; it gives {others}",
            labels=ours.describe(),
            others=base.describe(),
        )
    order = (
        ""
        if list(rows) == sorted(rows)
        else translate(", its rows put in the order of {labels}", labels=ours.describe())
    )
    return translate("the head of the base is kept: it knows these labels by name{order}", order=order)
