"""Memory of training on one device: the planned steps, the heaviest forward and backward passes, and what it all adds
up to.
"""

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tunelab.data.batching import BatchPlan
from tunelab.data.examples import IGNORE, MicroBatch
from tunelab.data.loader import BatchLoader
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.training.module import FineTuner

CGROUP = Path("/sys/fs/cgroup")  # of a container, where it is bound


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that were allocated at one time during `work`, above what there was before.

    A GPU's allocator counts by itself; on a CPU every allocation is recorded by PyTorch's profiler.  On other devices
    what the CPU allocates is counted.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself on the terminal
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda event: int(event.start_ns())):
        now += event.nbytes()
        top = max(top, now)
    return top


def workspace_bytes(device: torch.device) -> int:
    """Bytes of the workspace that the matrix products of a GPU keep from the first one on; it is freed.

    Measure after passes have run: forward and backward have a workspace each.
    """
    if device.type != "cuda":
        return 0
    before = torch.cuda.memory_allocated(device)
    torch._C._cuda_clearCublasWorkspaces()  # as Lightning does before a training, which then takes them anew
    return before - torch.cuda.memory_allocated(device)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process could still take on a device; None where nobody says."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    limits = [free for free in (host_free_bytes(), container_free_bytes()) if free is not None]
    return min(limits, default=None)


def host_free_bytes() -> int | None:
    """Bytes the machine could hand out without swapping."""
    table = Path("/proc/meminfo")
    if not table.is_file():
        return None
    lines = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def container_free_bytes() -> int | None:
    """Bytes until the bound of the container that this process runs in."""
    try:
        bound, used = (CGROUP / "memory.max").read_text().strip(), (CGROUP / "memory.current").read_text()
        return None if bound == "max" else max(0, int(bound) - int(used))
    except (OSError, ValueError):
        return None


SAMPLE_STEPS = 20  # steps that are laid out to count pairs of positions and padding


@dataclass(frozen=True)
class Workload:
    """The training data as work.

    Attributes:
        rows: Examples that an epoch sees.
        tokens: Real tokens of an epoch.
        steps: Optimizer steps of an epoch.
        passes: Forward passes of an epoch.
        heaviest: Micro-batches that may take the most memory: by positions, and by what is learned of them.
        later: The same among those that follow another one in their step, while its gradients are kept.
        lengths: Tokens of each sequence in the first steps.
        positions: Tokens of those steps, pads counted.
        learned: Supervised positions of those steps.
    """

    rows: int
    tokens: int
    steps: int
    passes: int
    heaviest: list[list[int]]
    later: list[list[int]]
    lengths: list[int]
    positions: int
    learned: int

    @property
    def padding(self) -> float:
        """Share of the positions that are padding."""
        return 1 - sum(self.lengths) / max(1, self.positions)

    @property
    def pairs(self) -> int:
        """Squared lengths of the first steps, summed."""
        return sum(length * length for length in self.lengths)


def plan_workload(loader: BatchLoader) -> Workload:
    """Look at the plans of the first epoch."""
    plans = loader.first_epoch_plans()
    drawn = [index for plan in plans for micro in plan.micro_batches for index in micro]
    first = [micro for plan in plans[:SAMPLE_STEPS] for micro in collate_plan(loader, plan)]
    sizes = [len(example.ids) for example in (loader.examples[index] for index in set(drawn))]
    size = dict(zip(set(drawn), sizes, strict=True))
    return Workload(
        rows=len(drawn),
        tokens=sum(size[index] for index in drawn),
        steps=len(plans),
        passes=sum(len(plan.micro_batches) for plan in plans),
        heaviest=heaviest_micro_batches(loader, (micro for plan in plans for micro in plan.micro_batches)),
        later=heaviest_micro_batches(loader, (micro for plan in plans for micro in plan.micro_batches[1:])),
        lengths=[length for micro in first for length in micro.lengths.tolist()],
        positions=sum(micro.ids.numel() for micro in first),
        learned=sum(int((micro.targets != IGNORE).sum()) for micro in first),
    )


def collate_plan(loader: BatchLoader, plan: BatchPlan) -> list[MicroBatch]:
    """The micro-batches of one plan."""
    return [loader.collate([loader.examples[index] for index in micro]) for micro in plan.micro_batches]


def heaviest_micro_batches(loader: BatchLoader, micros: Iterator[list[int]]) -> list[list[int]]:
    """The micro-batch with the most positions, and the one that learns the most; none of none."""
    batches = list(micros)
    if not batches:
        return []

    def positions(micro: Sequence[int]) -> int:
        lengths = [loader.lengths[index] for index in micro]
        return sum(lengths) if loader.packed else len(lengths) * max(lengths)

    def learns(micro: Sequence[int]) -> float:
        return sum(loader.loss_weights[index] for index in micro)

    chosen = [max(batches, key=positions), max(batches, key=learns)]
    return chosen[:1] if chosen[0] == chosen[1] else chosen


FIRST_TRY_DIVISOR = 8  # a first look takes one row of so many


@dataclass(frozen=True)
class PassMemory:
    """Bytes that a forward and a backward pass take at most, gradients among them, weights not.

    Attributes:
        first: Of the heaviest pass, where no other went before it in its step.
        later: Of the heaviest one that did, so that gradients stand beside it; None where every step is one pass.
        share: How much of the micro-batches was run; below 1 the rest would not have fit, and the bytes are scaled up.
        alone: Of the heaviest pass, where each gradient goes as soon as it is whole; None where it was not tried.
    """

    first: int
    later: int | None
    share: float = 1.0
    alone: int | None = None


def measure_passes(
    module: FineTuner, loader: BatchLoader, work: Workload, gradients: int, room: int | None
) -> PassMemory:
    """Run the heaviest micro-batches forward and backward; weights stay, gradients are dropped.

    Args:
        module: Its model stands where it trains.
        loader: Knows the rows.
        work: Knows which are heaviest.
        gradients: Bytes of all gradients.
        room: Bytes there are for it; where a part of a micro-batch shows that the whole takes more, that is not tried.
    """
    share, first, alone = 1.0, 0, 0
    frees = module.step_in_backward and not work.later
    for rows in work.heaviest:
        few = rows[: max(1, len(rows) // FIRST_TRY_DIVISOR)]
        scale = sum(loader.lengths[row] for row in rows) / sum(loader.lengths[row] for row in few)
        taken = measure_peak(module, [collate_rows(loader, few)], frees=frees)
        if room is not None and taken * scale > room:
            share, first = min(share, 1 / scale), max(first, round(taken * scale))
        else:
            micros = [collate_rows(loader, rows)]
            first = max(first, taken if len(few) == len(rows) else measure_peak(module, micros, frees=frees))
            alone = max(alone, measure_peak(module, micros, frees=True))
    if share < 1:
        return PassMemory(first, first + gradients if work.later else None, share)
    if not work.later:
        return PassMemory(first, None, share, alone)
    return PassMemory(
        first,
        max(
            measure_peak(module, [collate_rows(loader, rows)], after=collate_rows(loader, rows[:1]))
            for rows in work.later
        ),
        share,
        alone,
    )


def collate_rows(loader: BatchLoader, rows: Sequence[int]) -> MicroBatch:
    """A micro-batch of these rows."""
    return loader.collate([loader.examples[row] for row in rows])


def measure_peak(
    module: FineTuner, micros: Sequence[MicroBatch], after: MicroBatch | None = None, *, frees: bool = False
) -> int:
    """The most bytes that passes take; with `after`, beside the gradients that its pass has left, which count.

    With `frees` each gradient goes as soon as it is whole, as where weights are stepped within the backward pass.
    """
    model = module.model

    def let_go(weight: Tensor) -> None:
        weight.grad = None

    learned = [weight for weight in model.parameters() if weight.requires_grad] if frees else []
    handles = [weight.register_post_accumulate_grad_hook(let_go) for weight in learned]

    def run(micro: MicroBatch) -> None:
        torch.clear_autocast_cache()  # each step begins without copies of the weights in another precision
        _logits, loss = module.compute_loss(
            micro_to_device(micro, model.device)
        )  # both stand to the end, as in training
        loss.backward()

    try:
        left = 0
        if after is not None:
            run(after)
            left = sum(weight.grad.nbytes for weight in model.parameters() if weight.grad is not None)
        return left + peak_bytes(lambda: list(map(run, micros)), model.device)
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
        torch.clear_autocast_cache()


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one device, at their largest.

    Attributes:
        weights: Parameters and buffers.
        gradients: Of all that learns.
        optimizer_state: Once every parameter has been stepped.
        averages: Copies of the weights, where regularization keeps any.
        passes: What forward and backward passes take.
        step_buffers: What the optimizer's step takes for itself in passing.
        reevaluates_loss: Whether the optimizer's step runs passes of its own.
        workspace: What matrix products keep for themselves, on a GPU.
    """

    weights: int
    gradients: int
    optimizer_state: int
    averages: int
    passes: PassMemory
    step_buffers: int
    reevaluates_loss: bool = False
    workspace: int = 0

    @property
    def activations(self) -> int:
        """Bytes that the heaviest pass takes besides the gradients that were there before it."""
        return max(self.passes.first, 0 if self.passes.later is None else self.passes.later - self.gradients)

    @property
    def peak(self) -> int:
        """The most at any one time.

        A step begins without gradients, and they grow as activations go.  So the top is the first pass alone, a later
        pass with the gradients of those before it, or the optimizer's step with all gradients, whichever is larger;
        weights, state, averages and the workspace are always there.
        """
        always = self.weights + self.optimizer_state + self.averages + self.workspace
        passing = max(self.passes.first, self.passes.later or 0)
        return always + (
            passing + self.step_buffers if self.reevaluates_loss else max(passing, self.gradients + self.step_buffers)
        )


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each storage counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
