"""What each strategy costs a device: memory at its largest, and bytes that it sends in a step.

Both follow from sizes; `docs/scale.md` derives them and holds them against measured runs.
"""

from dataclasses import dataclass
from math import ceil

from transformers import PreTrainedModel

from tunelab.config.schema import TrainerConfig
from tunelab.models.freezing import layer_stack
from tunelab.models.tensor_parallel import split_faults, split_sizes
from tunelab.training.memory_profile import TrainingMemory, tensor_bytes

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


def strategy_costs(
    model: PreTrainedModel, trainer: TrainerConfig, memory: TrainingMemory, work: StepWork
) -> list[StrategyCost]:
    """The costs of `ddp` and `fsdp` on the devices of a run, or on a usual number of them; and of layers split between
    some of those, two where the run does not say how many.

    Args:
        model: Whole.
        trainer: Devices and machines.
        memory: Of one device that does all by itself.
        work: Of a step.
    """
    width = max(2, trainer.fsdp.tensor_parallel)
    splits = not split_faults(model, width)
    own = (trainer.devices if isinstance(trainer.devices, int) else 1) * trainer.num_nodes
    costs = []
    for devices in (own,) if own > 1 else USUAL_COUNTS:
        passes = ceil(work.passes / devices)
        costs.append(StrategyCost("ddp", devices, ddp_memory(memory), ddp_traffic(memory.gradients, devices)))
        costs.append(
            StrategyCost(
                "fsdp",
                devices,
                fsdp_memory(memory, largest_unit(model), devices),
                fsdp_traffic(memory.weights, memory.gradients, devices, passes),
            )
        )
        if splits and devices % width == 0:
            costs.append(split_cost(model, memory, work, devices, width))
    return costs


def split_cost(
    model: PreTrainedModel, memory: TrainingMemory, work: StepWork, devices: int, width: int
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
    whole = max(0, memory.activations - memory.gradients)
    activations = whole - min(whole * (1 - 1 / width), each * sizes.kept)
    unit = 3 * largest_unit(model) * of_weights
    passes = ceil(work.passes / groups)
    spread = fsdp_traffic(round(memory.weights * of_weights), round(memory.gradients * of_learned), groups, passes)
    sums = (work.positions * sizes.sent + work.learned * sizes.sent_by_head) / groups
    return StrategyCost(
        f"fsdp trainer.fsdp.tensor_parallel={width}",
        devices,
        ceil(kept + unit + activations) + memory.workspace,
        spread + ceil(sums),
    )


def largest_unit(model: PreTrainedModel) -> int:
    """Bytes of the largest part that is gathered at once: a layer, or all that stands outside the layers."""
    stack, _ = layer_stack(model)
    layers = [tensor_bytes(layer.parameters()) for layer in model.get_submodule(stack).children()] if stack else []
    return max([*layers, tensor_bytes(model.parameters()) - sum(layers)])


def ddp_memory(memory: TrainingMemory) -> int:
    """Bytes of a device that has the whole model: those of one device, and the buckets that gradients are sent in."""
    return memory.peak + memory.gradients


def fsdp_memory(memory: TrainingMemory, unit: int, devices: int) -> int:
    """Bytes of a device that has its share: of all that stays a part, and three gathered units besides activations.

    Two units are weights, of the layer that computes and of the next one; the third is the gradient of a layer before
    it is shared out.
    """
    kept = memory.weights + memory.optimizer_state + memory.averages + memory.gradients + memory.step_buffers
    activations = max(0, memory.activations - memory.gradients)
    return ceil(kept / devices) + 3 * unit + activations + memory.workspace


def ddp_traffic(gradients: int, devices: int) -> int:
    """Bytes that a device sends in a step: a ring sums the gradients and hands the sum round."""
    return ceil(2 * (devices - 1) / devices * gradients)


def fsdp_traffic(weights: int, gradients: int, devices: int, passes: int) -> int:
    """Bytes that a device sends in a step: in each pass weights are gathered twice, and gradients shared out once."""
    return ceil((devices - 1) / devices * passes * (2 * weights + gradients))
