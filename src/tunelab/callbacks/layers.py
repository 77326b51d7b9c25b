"""Gradient norm and update-to-weight ratio, layer by layer and overall."""

from collections.abc import Sequence
from math import isfinite, sqrt
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel
from typing_extensions import override

from tunelab.callbacks.log_points import is_log_step
from tunelab.models.freezing import ParameterDepths, parameter_depths

WHOLE = 2**20  # entries up to which a weight is copied whole; of larger ones
SAMPLED = 2**16  # entries at least, evenly spaced, are: the ratio is then an estimate, to about a hundredth


class LayerWatch(Callback):
    """Logs `layers/<which>/grad_norm` and `layers/<which>/update_ratio`, and `train/update_ratio` over all of them.

    `<which>` is `embeddings`, the number of a layer counted from 1, `last_norm` or `head`.  A gradient norm is taken
    before clipping and adds up to `train/grad_norm`, in squares.  The ratio is the norm of what a step changed, by
    optimizer, decay and whatever follows it, over the norm of the weights before; weights that do not learn count in
    neither.  All of it is measured in logged steps only, from copies of the weights that last for that step.
    """

    def __init__(self) -> None:
        self.groups: dict[str, list[nn.Parameter]] = {}
        self.before: dict[str, list[Tensor]] = {}
        self.norms: dict[str, Tensor] = {}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = next(part for part in pl_module.modules() if isinstance(part, PreTrainedModel))
        self.groups = by_layer(model)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if is_log_step(trainer):
            self.before = {name: [sample(w).clone() for w in weights] for name, weights in self.groups.items()}

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self.before and not self.norms:  # L-BFGS comes here for each of its evaluations
            self.norms = {name: gradient_norm(weights) for name, weights in self.groups.items()}

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.before:
            pl_module.log_dict(self.found(float(getattr(pl_module, "step_norm"))))  # noqa: B009  # of our own module
        self.before, self.norms = {}, {}

    @torch.no_grad()
    def found(self, total: float) -> dict[str, float]:
        """What the step that has just been taken shows.

        Args:
            total: Norm of the whole gradient before clipping.
        """
        moved, size = {}, {}
        for name, weights in self.groups.items():
            moved[name] = norm(torch._foreach_sub([sample(weight) for weight in weights], self.before[name]))
            size[name] = norm(self.before[name])
        rows = [torch.stack([part[name] for name in self.groups]) for part in (moved, size, self.norms) if part]
        told = torch.stack(rows).double().tolist()  # one wait for the device
        found = {"train/update_ratio": ratio(root(told[0]), root(told[1]))}
        for name, change, before in zip(self.groups, told[0], told[1], strict=True):
            found[f"layers/{name}/update_ratio"] = ratio(change, before)
        if self.norms:
            clipped = root(told[2])
            scale = ratio(total, clipped) if clipped or not isfinite(total) else 1.0  # none is known of a step left out
            for name, value in zip(self.groups, told[2], strict=True):
                found[f"layers/{name}/grad_norm"] = value * scale
        return found


def by_layer(model: PreTrainedModel) -> dict[str, list[nn.Parameter]]:
    """The parameters that learn, by the part of the network they stand in, from the bottom up."""
    high: ParameterDepths = parameter_depths(model)
    found: dict[int, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            found.setdefault(high.of[name], []).append(weight)
    return {which(high, depth): found[depth] for depth in sorted(found)}


def which(high: ParameterDepths, depth: int) -> str:
    """How a depth is called in the name of a curve."""
    return str(depth) if 0 < depth <= high.layers else high.name(depth).replace(" ", "_")


def sample(weight: Tensor) -> Tensor:
    """The entries of a weight that are looked at, flat: all of them, or evenly spaced ones."""
    flat = weight.detach().flatten()
    return flat if flat.numel() <= WHOLE else flat[:: (flat.numel() // SAMPLED) | 1]  # odd: not one column of a matrix


def gradient_norm(weights: Sequence[nn.Parameter]) -> Tensor:
    """Norm of the gradient; one that is held back counts as zeros."""
    found = [weight.grad for weight in weights if weight.grad is not None]
    return norm(found) if found else torch.zeros((), device=weights[0].device)


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all entries of some tensors."""
    parts: Sequence[Tensor] = torch._foreach_norm(list(tensors))
    found: Tensor = torch.linalg.vector_norm(torch.stack(list(parts)))
    return found


def root(norms: Sequence[float]) -> float:
    """The norm of the whole from the norms of its parts."""
    return sqrt(sum(value * value for value in norms))


def ratio(above: float, below: float) -> float:
    """A quotient; 0 where nothing is divided, infinite where only the divisor is nothing."""
    return above / below if below else (float("inf") if above else 0.0)
