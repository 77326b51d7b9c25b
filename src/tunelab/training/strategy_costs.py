"""What each strategy costs a device: memory at its largest, and bytes that it sends in a step.

Both follow from sizes; `docs/scale.md` derives them and holds them against measured runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from torch import Tensor
from transformers import PreTrainedModel

from tunelab.config.schema import FsdpConfig, TrainerConfig
from tunelab.models.freezing import layer_stack
from tunelab.models.tensor_parallel import split_faults, split_sizes
from tunelab.training.memory_profile import PassMemory, TrainingMemory, tensor_bytes

USUAL_COUNTS = (2, 8)  # devices that are told of where a run names one only


@dataclass(frozen=True)
class StrategyCost:
    """The cost of a strategy to each of its devices.

    Attributes:
        strategy: As `trainer=NAME`.
        devices: How many there are.
        memory: Bytes at their largest.
        traffic: Bytes that a device sends in an optimizer step.
    """

    strategy: str
    devices: int
    memory: int
    traffic: int


@dataclass(frozen=True)
class StepWork:
    """The work of an optimizer step, over all devices.

    Attributes:
        passes: Micro-batches.
        positions: Tokens and pads.
        learned: Supervised positions.
    """

    passes: float
    positions: float = 0
    learned: float = 0


@dataclass(frozen=True)
class Units:
    """Bytes of what is gathered together.

    Attributes:
        every: All weights.
        outside: Those in no layer.
        outside_learned: Their gradients.
        layer: The largest layer.
        layer_learned: Its gradients.
    """

    every: int
    outside: int
    outside_learned: int
    layer: int
    layer_learned: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Units":
        """Those of a model."""
        stack, _ = layer_stack(model)
        layers = [list(layer.parameters()) for layer in model.get_submodule(stack).children()] if stack else []
        sizes = [(tensor_bytes(layer), tensor_bytes(filter(learns, layer))) for layer in layers]
        every = tensor_bytes(model.parameters())
        learned = tensor_bytes(filter(learns, model.parameters()))
        outside = every - sum(size for size, _ in sizes), learned - sum(size for _, size in sizes)
        return cls(every, *outside, max([0, *(size for size, _ in sizes)]), max([0, *(size for _, size in sizes)]))

    def in_backward(self, config: FsdpConfig) -> float:
        """Bytes gathered at most in a backward pass, gradients that have not been shared out among them.

        What is in no layer stays to the end, and so do its gradients.  Of the layers there is the one that computes
        with its gradient, and the next one.
        """
        layers = 2 * self.layer if config.reshard_after_forward else self.every - self.outside
        return number_share(config.gather_dtype) * (self.outside + self.outside_learned + layers + self.layer_learned)

    def at_ends(self, config: FsdpConfig) -> float:
        """Bytes that what is in no layer takes while it is gathered, or its gradient shared out: there twice."""
        return number_share(config.gather_dtype) * 2 * max(self.outside, self.outside_learned)


def learns(weight: Tensor) -> bool:
    """Whether a weight has a gradient."""
    return weight.requires_grad


def number_share(dtype: str) -> float:
    """Bytes of a number, as a share of those in 32 bit."""
    return 0.5 if dtype == "bfloat16" else 1.0


def strategy_costs(
    model: PreTrainedModel,
    trainer: TrainerConfig,
    memory: TrainingMemory,
    work: StepWork,
    passes_on: Callable[[int], PassMemory] | None = None,
) -> list[StrategyCost]:
    """The costs of `ddp` and `fsdp` on the devices of a run, or on a usual number of them; and of layers split between
    some of those, two where the run does not say how many.

    Args:
        model: Whole.
        trainer: Devices and machines.
        memory: Of one device that does all by itself.
        work: Of a step.
        passes_on: What passes take where so many devices share the rows of a step; None where it is the same.
    """
    width, config, units = max(2, trainer.fsdp.tensor_parallel), trainer.fsdp, Units.of(model)
    splits = not split_faults(model, width)
    own = (trainer.devices if isinstance(trainer.devices, int) else 1) * trainer.num_nodes
    costs = []
    for devices in (own,) if own > 1 else USUAL_COUNTS:
        passes = ceil(work.passes / devices)
        own_memory = memory if passes_on is None else replace(memory, passes=passes_on(devices))
        costs.append(StrategyCost("ddp", devices, ddp_memory(own_memory), ddp_traffic(memory.gradients, devices)))
        costs.append(
            StrategyCost(
                "fsdp",
                devices,
                fsdp_memory(own_memory, units, devices, config, on_cpu=trainer.accelerator == "cpu"),
                fsdp_traffic(units, memory.gradients, devices, passes, config),
            )
        )
        if splits and devices % width == 0:
            costs.append(split_cost(model, memory, work, devices, width, config))
    return costs


def split_cost(
    model: PreTrainedModel, memory: TrainingMemory, work: StepWork, devices: int, width: int, config: FsdpConfig
) -> StrategyCost:
    """The cost of `fsdp` where groups of `width` devices split each layer between them.

    A device has its part of the weights and of the activations within layers; those between layers, and the logits,
    it has as one alone.
    """
    sizes, groups = split_sizes(model, width), devices // width
    of_weights, of_learned = sizes.share, sizes.learned_share
    learned = memory.optimizer_state + memory.averages + memory.gradients + memory.step_buffers
    kept = (memory.weights * of_weights + learned * of_learned) / groups
    each = work.positions / max(1, work.passes)  # positions of a pass
    whole, units = alone(memory), Units.of(model)
    activations = whole - min(whole * (1 - 1 / width), each * sizes.kept)
    unit = units.in_backward(config) * of_weights
    passes = ceil(work.passes / groups)
    spread = fsdp_traffic(units, memory.gradients, groups, passes, config, of_weights, of_learned)
    sums = (work.positions * sizes.sent + work.learned * sizes.sent_by_head) / groups
    return StrategyCost(
        f"fsdp trainer.fsdp.tensor_parallel={width}",
        devices,
        ceil(kept + unit + activations) + memory.workspace,
        spread + ceil(sums),
    )


def ddp_memory(memory: TrainingMemory) -> int:
    """Bytes of a device that has the whole model: those of one device, and the buckets that gradients are sent in."""
    return memory.peak + memory.gradients


def alone(memory: TrainingMemory) -> int:
    """Bytes of the heaviest pass without the gradients that it leaves."""
    tried = memory.passes.alone
    return max(0, memory.activations - memory.gradients) if tried is None else tried


def fsdp_memory(memory: TrainingMemory, units: Units, devices: int, config: FsdpConfig, *, on_cpu: bool = False) -> int:
    """Bytes of a device that has its share of weights, state and gradients, and gathers units for a pass.

    The top is a backward pass, an end of it, or the optimizer's step.  With `cpu_offload` the shares are elsewhere,
    unless the devices are CPUs.
    """
    here = 0.0 if config.cpu_offload and not on_cpu else 1 / devices
    gradients, later = memory.gradients * here, memory.passes.later
    beside = 0.0 if later is None else gradients + later - memory.gradients  # a pass, and the parts that others left
    moments = (
        max(alone(memory), beside) + units.in_backward(config),
        gradients + units.at_ends(config),
        gradients + memory.step_buffers * here,
    )
    kept = (memory.weights + memory.optimizer_state + memory.averages) * here
    return ceil(kept + max(moments)) + memory.workspace


def ddp_traffic(gradients: int, devices: int) -> int:
    """Bytes that a device sends in a step: a ring sums the gradients and hands the sum round."""
    return ceil(2 * (devices - 1) / devices * gradients)


def fsdp_traffic(
    units: Units,
    gradients: int,
    devices: int,
    passes: int,
    config: FsdpConfig,
    of_weights: float = 1.0,
    of_learned: float = 1.0,
) -> int:
    """Bytes that a device sends in a step, of which it has a part of weights and gradients where layers are split.

    In each pass layers are gathered twice, once where they stay gathered, and what is in no layer once; gradients are
    shared out.
    """
    times = 2 if config.reshard_after_forward else 1
    weights = units.outside + times * (units.every - units.outside)
    gathered = weights * of_weights * number_share(config.gather_dtype)
    shared_out = gradients * of_learned * number_share(config.reduce_dtype)
    return ceil((devices - 1) / devices * passes * (gathered + shared_out))
