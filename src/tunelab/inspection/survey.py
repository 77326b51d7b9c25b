"""All that is known of a run before it trains: read off, counted, and measured on a few passes and steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunelab.assemble import Prepared, make_data, make_module, planned_steps
from tunelab.callbacks.flops import StepCost, step_cost
from tunelab.data.loader import StepLoader
from tunelab.inspection.anatomy import Part, parts, sizes
from tunelab.inspection.curve import Curve, curve
from tunelab.inspection.memory import Memory, held
from tunelab.inspection.optimizer_state import optimizer_bytes
from tunelab.inspection.passes import lay, measure
from tunelab.inspection.peak import free_bytes, workspace_bytes
from tunelab.inspection.probe import Speed, device_name, probe
from tunelab.inspection.signals import Signals
from tunelab.inspection.signals import measure as measure_signals
from tunelab.inspection.untouched import as_it_was
from tunelab.inspection.verdict import Verdict, judge
from tunelab.inspection.workload import Workload, workload
from tunelab.models.document_attention import on_device
from tunelab.module import FineTuner
from tunelab.reference import at_work, training_device

LOOK = 32  # sequences that signals are measured on


@dataclass(frozen=True)
class Survey:
    """What is about to be trained.

    Attributes:
        sizes: The architecture in numbers, by name.
        parts: Its layers from the bottom up.
        work: The training data as steps and passes.
        steps: Optimizer steps of the run, if nothing stops it early.
        cost: Arithmetic of a step, as factors.
        memory: Bytes of one device at their largest.
        room: Bytes that the device has for it; None where nobody says.
        curve: The rate over the steps.
        signals: Sizes along the depth, at the first weights.
        verdict: What they say.
        speed: What a few steps showed.
    """

    sizes: Mapping[str, str | int | None]
    parts: Sequence[Part]
    work: Workload
    steps: int
    cost: StepCost
    memory: Memory
    room: int | None
    curve: Curve
    signals: Signals
    verdict: Verdict
    speed: Speed

    @property
    def operations_per_token(self) -> float:
        """Forward and backward, over the lengths that the first steps have; a multiply-add is two."""
        tokens = sum(self.work.lengths)
        work = self.cost.operations(tokens=tokens, pairs=self.work.pairs, outputs=self.work.learned)
        return work / max(1, tokens)

    @property
    def tokens(self) -> float:
        """Real tokens that the whole run trains on."""
        return self.work.tokens * self.steps / max(1, self.work.steps)

    @property
    def seconds(self) -> tuple[float, float, float] | None:
        """Expected time of training alone: by the mean, the fastest and the slowest of the steps that were tried."""
        return self.speed.expected(self.tokens)


def survey(prepared: Prepared) -> Survey:
    """Look at everything; model and random numbers are afterwards as they were."""
    settings, model = prepared.settings, prepared.model
    device = training_device(str(settings.trainer["accelerator"]))
    steps = planned_steps(settings, prepared.epoch_rows)
    loader = make_data(prepared).loader("train")
    work = workload(loader)
    free = free_bytes(device)
    weights = held([*model.parameters(), *model.buffers()])
    room = None if free is None else free + (weights if model.device.type == device.type else 0)
    with as_it_was(model):
        module = make_module(prepared, model)
        with at_work(model, settings):
            signals = measure_signals(model, lambda: mean_loss(module, loader, work.heaviest[0][:LOOK]))
        memory = count_memory(prepared, module, loader, work, device, room)
        if room is not None and memory.peak > room:
            speed = Speed(device_name(device), [], [], None, "not tried, because the memory is not there")
        else:
            speed = probe(prepared, module)
        return Survey(
            sizes(model), parts(model), work, steps, step_cost(model), memory, room, curve(settings, steps), signals,
            judge(signals), speed,
        )  # fmt: skip


def mean_loss(module: FineTuner, loader: StepLoader, rows: Sequence[int]) -> Tensor:
    """The training loss of rows, divided by their units."""
    micro = on_device(lay(loader, rows), module.model.device)
    return module.regularizer.loss(micro)[1] / max(sum(loader.units[row] for row in rows), 1e-12)


def count_memory(
    prepared: Prepared, module: FineTuner, loader: StepLoader, work: Workload, device: torch.device, room: int | None
) -> Memory:
    """Everything that stands in memory, and what passes."""
    model, regularizer = prepared.model, module.regularizer
    with at_work(model, prepared.settings):
        gradients = held(weight for weight in model.parameters() if weight.requires_grad)
        averages = gradients * len(regularizer.averages)
        if regularizer.loss.mixout is not None:
            averages += held(regularizer.loss.mixout.pretrained)
        weights = held([*model.parameters(), *model.buffers()])
        taken = optimizer_bytes(model, prepared.settings, device)
        left = None if room is None else room - weights - taken.state - averages
        passes = measure(module, loader, work, gradients, left)
    workspace = workspace_bytes(device)
    return Memory(weights, gradients, taken.state, averages, passes, taken.passing, taken.again, workspace)
