"""Statistics of layers: gradient norms, update ratios, dead units, activation sizes, gradient histograms."""

from collections.abc import Iterator, Sequence
from math import isfinite, sqrt
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.optim import Optimizer
from transformers import PreTrainedModel
from transformers import activations as named
from typing_extensions import override

from tunelab.models.freezing import ParameterDepths, layer_stack, parameter_depths
from tunelab.models.sharding import gather_tree, is_sharded, local_part, norm_over_processes
from tunelab.tracking.base import HistogramLogger
from tunelab.training.callbacks.resource_monitors import is_log_step
from tunelab.training.processes import row_share

MAX_WHOLE_COPY = 2**20  # entries up to which a weight is copied whole; of larger ones
MIN_SAMPLE_SIZE = 2**16  # entries at least, evenly spaced, are: the ratio is then an estimate, to about a hundredth


class LayerMonitor(Callback):
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
        self.is_sharded = False  # whether each process has a part of every weight

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = next(part for part in pl_module.modules() if isinstance(part, PreTrainedModel))
        self.groups = parameters_by_layer(model)
        self.is_sharded = is_sharded(model)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if is_log_step(trainer):
            self.before = {name: [sample_entries(w).clone() for w in weights] for name, weights in self.groups.items()}

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gone = getattr(pl_module, "step_in_backward", False)  # gradients that were stepped along in the backward pass
        if self.before and not self.norms and not gone:  # L-BFGS comes here for each of its evaluations
            self.norms = {name: gradient_norm(weights) for name, weights in self.groups.items()}

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.before:
            pl_module.log_dict(self.step_statistics(float(getattr(pl_module, "step_norm"))))  # noqa: B009  # of our own module
        self.before, self.norms = {}, {}

    @torch.no_grad()
    def step_statistics(self, total: float) -> dict[str, float]:
        """Update ratios and gradient norms of the step that has just been taken, by layer.

        Args:
            total: Norm of the whole gradient before clipping.
        """
        moved, size = {}, {}
        for name, weights in self.groups.items():
            moved[name] = joint_norm(
                torch._foreach_sub([sample_entries(weight) for weight in weights], self.before[name])
            )
            size[name] = joint_norm(self.before[name])
        rows = [torch.stack([part[name] for name in self.groups]) for part in (moved, size, self.norms) if part]
        stacked = torch.stack(rows).double()
        norms = (norm_over_processes(stacked) if self.is_sharded else stacked).tolist()  # one wait for the device
        statistics = {"train/update_ratio": safe_ratio(root_sum_square(norms[0]), root_sum_square(norms[1]))}
        for name, change, before in zip(self.groups, norms[0], norms[1], strict=True):
            statistics[f"layers/{name}/update_ratio"] = safe_ratio(change, before)
        if self.norms:
            clipped = root_sum_square(norms[2])
            scale = (
                safe_ratio(total, clipped) if clipped or not isfinite(total) else 1.0
            )  # none is known of a step left out
            for name, value in zip(self.groups, norms[2], strict=True):
                statistics[f"layers/{name}/grad_norm"] = value * scale
        return statistics


def parameters_by_layer(model: PreTrainedModel) -> dict[str, list[nn.Parameter]]:
    """The parameters that learn, by the part of the network they stand in, from the bottom up."""
    depths: ParameterDepths = parameter_depths(model)
    groups: dict[int, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            groups.setdefault(depths.by_name[name], []).append(weight)
    return {layer_label(depths, depth): groups[depth] for depth in sorted(groups)}


def layer_label(depths: ParameterDepths, depth: int) -> str:
    """The name of a depth in the name of a curve."""
    return str(depth) if 0 < depth <= depths.layers else depths.name(depth).replace(" ", "_")


def sample_entries(weight: Tensor) -> Tensor:
    """A flat sample of a weight's entries, as far as this process has them: all of them, or evenly spaced ones."""
    flat = local_part(weight.detach()).flatten()
    return (
        flat if flat.numel() <= MAX_WHOLE_COPY else flat[:: (flat.numel() // MIN_SAMPLE_SIZE) | 1]
    )  # odd: not one column of a matrix


def gradient_norm(weights: Sequence[nn.Parameter]) -> Tensor:
    """Norm of the gradient, as far as this process has it; of frozen weights it is 0."""
    gradients = [local_part(weight.grad) for weight in weights if weight.grad is not None]
    return joint_norm(gradients) if gradients else torch.zeros((), device=weights[0].device)


def joint_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all entries of some tensors."""
    parts: Sequence[Tensor] = torch._foreach_norm(list(tensors))
    norm: Tensor = torch.linalg.vector_norm(torch.stack(list(parts)))
    return norm


def root_sum_square(norms: Sequence[float]) -> float:
    """The norm of the whole from the norms of its parts."""
    return sqrt(sum(value * value for value in norms))


def safe_ratio(above: float, below: float) -> float:
    """A quotient; 0 where nothing is divided, infinite where only the divisor is nothing."""
    return above / below if below else (float("inf") if above else 0.0)


DEAD_THRESHOLD = 1e-4  # an activation no larger than this is off: exactly 0 for ReLU, far in the tail for GELU and SiLU
UNITLESS_ACTIVATIONS = (activation.Softmax, activation.LogSoftmax, activation.Softmin, activation.MultiheadAttention)


class ActivationMonitor(Callback):
    """Logs `layers/<number>/dead_units`, `train/dead_units` over all layers, and on request sizes of outputs.

    A unit is an output of an activation function inside a layer.  It counts as dead where no token of the step, on
    any rank, switches it on; a single step may miss a rare one, so the smallest of several shares is nearest to the
    truth.  With `sizes`, `layers/<number>/activation_rms` and `layers/<number>/activation_max` are the root mean square
    and the largest absolute value of what a layer hands on.

    Hooks are there in logged steps only, and draw no random numbers.

    Args:
        units: Whether to look for dead units.
        sizes: Whether to look at outputs of layers.
    """

    def __init__(self, *, units: bool, sizes: bool) -> None:
        self.units, self.sizes = units, sizes
        self.layers: list[nn.Module] = []
        self.handles: list[Any] = []
        self.peaks: dict[tuple[int, int], Tensor] = {}  # layer and place in it -> (units,) largest absolute value
        self.outputs: dict[int, tuple[Tensor, Tensor, int]] = {}  # layer -> sum of squares, largest, entries

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = next(part for part in pl_module.modules() if isinstance(part, PreTrainedModel))
        stack, count = layer_stack(model)
        self.layers = [model.get_submodule(f"{stack}.{index}") for index in range(count)]

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not is_log_step(trainer):
            return
        for number, layer in enumerate(self.layers, 1):
            if self.sizes:
                self.handles.append(layer.register_forward_hook(self._size_hook(number)))
            for index, function in enumerate(activation_modules(layer) if self.units else ()):
                self.handles.append(function.register_forward_hook(self._peak_hook((number, index))))

    def _size_hook(self, number: int) -> Any:
        def record_size(module: nn.Module, inputs: Any, output: Any) -> None:
            left = (output[0] if isinstance(output, tuple) else output).detach().float()
            squares, largest, entries = self.outputs.get(number, (left.new_zeros(()), left.new_zeros(()), 0))
            self.outputs[number] = (
                squares + left.square().sum(), torch.maximum(largest, left.abs().max()), entries + left.numel()
            )  # fmt: skip

        return record_size

    def _peak_hook(self, where: tuple[int, int]) -> Any:
        def record_peak(module: nn.Module, inputs: Any, output: Tensor) -> None:
            peak = output.detach().abs().flatten(0, -2).amax(0).float()
            self.peaks[where] = torch.maximum(self.peaks[where], peak) if where in self.peaks else peak

        return record_peak

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for handle in self.handles:
            handle.remove()
        if self.handles:
            pl_module.log_dict({**self._dead(trainer), **self._sizes(trainer)})
        self.handles, self.peaks, self.outputs = [], {}, {}

    def _dead(self, trainer: Trainer) -> dict[str, float]:
        if not self.peaks:
            return {}
        sizes = {where: peak.numel() for where, peak in self.peaks.items()}
        own, others = torch.cat(list(self.peaks.values())), row_share(trainer).processes
        peaks = torch.as_tensor(trainer.strategy.reduce(own, group=others, reduce_op="max"))
        off = [int((part <= DEAD_THRESHOLD).sum()) for part in peaks.cpu().split(list(sizes.values()))]
        if others is not None:  # a process may have a part of the units: those of all, as often as they have them
            counts = trainer.strategy.reduce(torch.tensor([off, [*sizes.values()]], device=own.device), reduce_op="sum")
            off, units_of_all = torch.as_tensor(counts).tolist()
            sizes = dict(zip(sizes, units_of_all, strict=True))
        shares, dead, units = {}, dict[int, int](), dict[int, int]()
        for (number, _), count, size in zip(sizes, off, sizes.values(), strict=True):
            dead[number], units[number] = dead.get(number, 0) + count, units.get(number, 0) + size
        for number, count in dead.items():
            shares[f"layers/{number}/dead_units"] = count / units[number]
        return {**shares, "train/dead_units": sum(off) / sum(sizes.values())}

    def _sizes(self, trainer: Trainer) -> dict[str, float]:
        if not self.outputs:
            return {}
        squares = torch.stack([sums[0] for sums in self.outputs.values()]).double()
        counts = torch.tensor([sums[2] for sums in self.outputs.values()]).to(squares)
        sums = torch.as_tensor(trainer.strategy.reduce(torch.stack((squares, counts)), reduce_op="sum"))
        largest = torch.stack([sums[1] for sums in self.outputs.values()])
        most = torch.as_tensor(trainer.strategy.reduce(largest, reduce_op="max"))
        statistics = {}
        for number, square, count, top in zip(self.outputs, *sums.tolist(), most.tolist(), strict=True):
            statistics[f"layers/{number}/activation_rms"] = (square / count) ** 0.5
            statistics[f"layers/{number}/activation_max"] = top
        return statistics


def activation_modules(layer: nn.Module) -> Iterator[nn.Module]:
    """The activation functions with units, in a layer."""
    for module in layer.modules():
        home = type(module).__module__
        if home in (activation.__name__, named.__name__) and not isinstance(module, UNITLESS_ACTIVATIONS):
            yield module


class GradientHistograms(Callback):
    """Draws the gradient of a whole step, as the optimizer sees it: after clipping, over all micro-batches and ranks.

    A hook on the parameters, as `wandb.watch` sets it, would see the part of one micro-batch.

    Args:
        every: Optimizer steps between two drawings; the first step is drawn.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        step = trainer.global_step
        if step % self.every:
            return
        spread = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        gradients = gather_tree(spread, keep=trainer.is_global_zero)  # by all processes, where they share the model
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, HistogramLogger):
                logger.log_histograms(gradients, step)
