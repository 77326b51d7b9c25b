"""The inspection of a run before it trains: size, work, memory, learning rate, first signals, speed."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from tunelab.analysis.model_inspection import (
    LayerSignals,
    ModelPart,
    SignalVerdict,
    architecture_sizes,
    assess_signals,
    model_parts,
)
from tunelab.analysis.model_inspection import measure_layer_signals as measure_signals
from tunelab.config.schema import RunConfig
from tunelab.data.loader import BatchLoader
from tunelab.models.device_placement import TrainingPlacement, select_training_device
from tunelab.models.flops import StepFlops, step_flops
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.optim.factory import build_schedule, follows_plateau
from tunelab.optim.schedules import warmup_steps
from tunelab.training.components import RunComponents, build_datamodule, build_module, count_planned_steps
from tunelab.training.memory_profile import (
    SAMPLE_STEPS,
    PassMemory,
    TrainingMemory,
    Workload,
    collate_rows,
    free_bytes,
    measure_passes,
    plan_workload,
    tensor_bytes,
    workspace_bytes,
)
from tunelab.training.module import FineTuner
from tunelab.training.optimizer_memory import measure_optimizer_memory
from tunelab.training.strategy_costs import StepWork, StrategyCost, strategy_costs
from tunelab.training.trial_steps import TrainingSpeed, device_name, measure_speed, preserve_model

CURVE_POINTS = 300  # of a curve; every step where there are fewer


@dataclass(frozen=True)
class LearningRateCurve:
    """Rates of a run.

    Attributes:
        steps: Optimizer steps.
        rates: The rate of each.
        warmup: Steps of warm-up.
        follows_validation: Whether validations will lower it, so that only the rise is known.
    """

    steps: list[int]
    rates: list[float]
    warmup: int
    follows_validation: bool


def learning_rate_curve(settings: RunConfig, total: int) -> LearningRateCurve:
    """The rate at evenly spaced steps, the corners of the warm-up among them."""
    factor: Callable[[int], float] = build_schedule(settings.scheduler, total)
    warmup = warmup_steps(settings.scheduler.number("warmup"), total)
    last = max(0, total - 1)
    evenly = (
        {round(point * last / (CURVE_POINTS - 1)) for point in range(CURVE_POINTS)}
        if total > CURVE_POINTS
        else set(range(total))
    )
    steps = sorted(evenly | {min(last, max(0, warmup - 1))})
    rates = [settings.lr * factor(step) for step in steps]
    return LearningRateCurve(steps, rates, warmup, follows_plateau(settings.scheduler))


SIGNAL_SEQUENCES = 32  # sequences that signals are measured on


@dataclass(frozen=True)
class RunInspection:
    """Sizes, cost, memory, signals and speed of a run before it is trained.

    Attributes:
        architecture: Its sizes in numbers, by name.
        layers: Parts of the network from the bottom up.
        workload: The training data as steps and passes.
        planned_steps: Optimizer steps of the run, if nothing stops it early.
        flops: Arithmetic of a step, as factors.
        memory: Bytes of one device at their largest.
        available_memory: Bytes that the device has for it; None where it is unknown.
        learning_rates: The rate over the steps.
        signals: Sizes along the depth, at the first weights.
        signal_verdict: On these signals.
        speed: Measured on a few steps.
        strategies: What several devices would take.
    """

    architecture: Mapping[str, str | int | None]
    layers: Sequence[ModelPart]
    workload: Workload
    planned_steps: int
    flops: StepFlops
    memory: TrainingMemory
    available_memory: int | None
    learning_rates: LearningRateCurve
    signals: LayerSignals
    signal_verdict: SignalVerdict
    speed: TrainingSpeed
    strategies: Sequence[StrategyCost]

    @property
    def flops_per_token(self) -> float:
        """Forward and backward, over the lengths that the first steps have; a multiply-add is two."""
        tokens = sum(self.workload.lengths)
        flops = self.flops.operations(tokens=tokens, pairs=self.workload.pairs, outputs=self.workload.learned)
        return flops / max(1, tokens)

    @property
    def planned_tokens(self) -> float:
        """Real tokens that the whole run trains on."""
        return self.workload.tokens * self.planned_steps / max(1, self.workload.steps)

    @property
    def expected_seconds(self) -> tuple[float, float, float] | None:
        """Expected time of training alone: by the mean, the fastest and the slowest of the steps that were tried."""
        return self.speed.expected(self.planned_tokens)


def inspect_run(components: RunComponents) -> RunInspection:
    """Look at everything; model and random numbers are afterwards as they were."""
    settings, model = components.settings, components.model
    device = select_training_device(settings.trainer.accelerator)
    steps = count_planned_steps(settings, components.epoch_rows)
    loader = build_datamodule(components).loader("train")
    work = plan_workload(loader)
    free = free_bytes(device)
    weights = tensor_bytes([*model.parameters(), *model.buffers()])
    room = None if free is None else free + (weights if model.device.type == device.type else 0)
    with preserve_model(model):
        module = build_module(components, model)
        with TrainingPlacement.from_config(settings.trainer).hold(model):
            signals = measure_signals(model, lambda: mean_loss(module, loader, work.heaviest[0][:SIGNAL_SEQUENCES]))
        memory = measure_memory(components, module, loader, work, device, room)
        if room is not None and memory.peak > room:
            speed = TrainingSpeed(device_name(device), [], [], None, "not tried, because the memory is not there")
        else:
            speed = measure_speed(components, module)
        return RunInspection(
            architecture_sizes(model),
            model_parts(model),
            work,
            steps,
            step_flops(model),
            memory,
            room,
            learning_rate_curve(settings, steps),
            signals,
            assess_signals(signals),
            speed,
            forecast_costs(components, module, loader, work, memory, room),
        )


def forecast_strategies(components: RunComponents) -> tuple[TrainingMemory, list[StrategyCost]]:
    """The memory of one device that does all, and what several would take and send; nothing else of an inspection."""
    settings, model = components.settings, components.model
    loader = build_datamodule(components).loader("train")
    work, device = plan_workload(loader), select_training_device(settings.trainer.accelerator)
    with preserve_model(model):
        module = build_module(components, model)
        memory = measure_memory(components, module, loader, work, device, None)
        return memory, forecast_costs(components, module, loader, work, memory, None)


def forecast_costs(
    components: RunComponents,
    module: FineTuner,
    loader: BatchLoader,
    work: Workload,
    memory: TrainingMemory,
    room: int | None,
) -> list[StrategyCost]:
    """What several devices would take and send; passes are measured with the rows that one of them has of a step."""
    trainer, model = components.settings.trainer, components.model
    left = None if room is None else room - memory.weights - memory.optimizer_state - memory.averages

    def passes_on(devices: int) -> PassMemory:
        share = copy(loader)
        share.world_size = devices
        with TrainingPlacement.from_config(trainer).hold(model):
            return measure_passes(module, share, plan_workload(share), memory.gradients, left)

    return strategy_costs(model, trainer, memory, step_work(work), passes_on)


def step_work(work: Workload) -> StepWork:
    """The work of an optimizer step: the mean of an epoch in passes, of its first steps in positions."""
    steps = max(1, work.steps)
    seen = min(SAMPLE_STEPS, steps)
    return StepWork(work.passes / steps, work.positions / seen, work.learned / seen)


def mean_loss(module: FineTuner, loader: BatchLoader, rows: Sequence[int]) -> Tensor:
    """The training loss of rows, divided by their loss weight."""
    micro = micro_to_device(collate_rows(loader, rows), module.model.device)
    return module.compute_loss(micro)[1] / max(sum(loader.loss_weights[row] for row in rows), 1e-12)


def measure_memory(
    components: RunComponents,
    module: FineTuner,
    loader: BatchLoader,
    work: Workload,
    device: torch.device,
    room: int | None,
) -> TrainingMemory:
    """Everything that stands in memory, and what passes."""
    model = components.model
    with TrainingPlacement.from_config(components.settings.trainer).hold(model):
        learned = [weight for weight in model.parameters() if weight.requires_grad]
        gradients = tensor_bytes(learned)
        averages = gradients * len(module.regularizer.averages)
        if module.training_loss.mixout is not None:
            averages += tensor_bytes(module.training_loss.mixout.pretrained)
        weights = tensor_bytes([*model.parameters(), *model.buffers()])
        optimizer = measure_optimizer_memory(model, components.settings, device)
        left = None if room is None else room - weights - optimizer.state_bytes - averages
        passes = measure_passes(module, loader, work, gradients, left)
    workspace = workspace_bytes(device)
    if module.step_in_backward and not work.later:  # they never stand at once
        gradients = max(weight.nbytes for weight in learned)
    return TrainingMemory(
        weights,
        gradients,
        optimizer.state_bytes,
        averages,
        passes,
        optimizer.step_bytes,
        optimizer.reevaluates_loss,
        workspace,
    )
