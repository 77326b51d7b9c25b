"""What layers give out: units that are never on, and on request the size of each output."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules import activation
from transformers import PreTrainedModel
from transformers import activations as named
from typing_extensions import override

from tunelab.callbacks.log_points import is_log_step
from tunelab.models.freezing import layer_stack

OFF = 1e-4  # an activation no larger than this is off: exactly 0 for ReLU, far in the tail for GELU and SiLU
WITHOUT_UNITS = (activation.Softmax, activation.LogSoftmax, activation.Softmin, activation.MultiheadAttention)


class ActivationWatch(Callback):
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
        self.layers = [model.get_submodule(f"{stack}.{place}") for place in range(count)]

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not is_log_step(trainer):
            return
        for number, layer in enumerate(self.layers, 1):
            if self.sizes:
                self.handles.append(layer.register_forward_hook(self._look_at(number)))
            for place, function in enumerate(activations(layer) if self.units else ()):
                self.handles.append(function.register_forward_hook(self._watch((number, place))))

    def _look_at(self, number: int) -> Any:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            left = (output[0] if isinstance(output, tuple) else output).detach().float()
            squares, largest, entries = self.outputs.get(number, (left.new_zeros(()), left.new_zeros(()), 0))
            self.outputs[number] = (
                squares + left.square().sum(), torch.maximum(largest, left.abs().max()), entries + left.numel()
            )  # fmt: skip

        return look

    def _watch(self, where: tuple[int, int]) -> Any:
        def watch(module: nn.Module, given: Any, output: Tensor) -> None:
            peak = output.detach().abs().flatten(0, -2).amax(0).float()
            self.peaks[where] = torch.maximum(self.peaks[where], peak) if where in self.peaks else peak

        return watch

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
        peaks = torch.as_tensor(trainer.strategy.reduce(torch.cat(list(self.peaks.values())), reduce_op="max"))
        off = [int((part <= OFF).sum()) for part in peaks.cpu().split(list(sizes.values()))]
        found, dead, units = {}, dict[int, int](), dict[int, int]()
        for (number, _), count, size in zip(sizes, off, sizes.values(), strict=True):
            dead[number], units[number] = dead.get(number, 0) + count, units.get(number, 0) + size
        for number, count in dead.items():
            found[f"layers/{number}/dead_units"] = count / units[number]
        return {**found, "train/dead_units": sum(off) / sum(sizes.values())}

    def _sizes(self, trainer: Trainer) -> dict[str, float]:
        if not self.outputs:
            return {}
        squares = torch.stack([found[0] for found in self.outputs.values()]).double()
        counts = torch.tensor([found[2] for found in self.outputs.values()]).to(squares)
        sums = torch.as_tensor(trainer.strategy.reduce(torch.stack((squares, counts)), reduce_op="sum"))
        largest = torch.stack([found[1] for found in self.outputs.values()])
        most = torch.as_tensor(trainer.strategy.reduce(largest, reduce_op="max"))
        found = {}
        for number, square, count, top in zip(self.outputs, *sums.tolist(), most.tolist(), strict=True):
            found[f"layers/{number}/activation_rms"] = (square / count) ** 0.5
            found[f"layers/{number}/activation_max"] = top
        return found


def activations(layer: nn.Module) -> Iterator[nn.Module]:
    """The activation functions with units, in a layer."""
    for module in layer.modules():
        home = type(module).__module__
        if home in (activation.__name__, named.__name__) and not isinstance(module, WITHOUT_UNITS):
            yield module
