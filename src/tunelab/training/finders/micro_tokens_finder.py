"""`find=micro_tokens`: the largest that fits, tried on the longest rows with whole optimizer steps."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tunelab.analysis.number_format import MEBIBYTE, format_bytes
from tunelab.data.batching import longest_first
from tunelab.data.examples import Batch
from tunelab.data.loader import BatchLoader
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.device_placement import select_training_device
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import Chart, Table
from tunelab.training.components import RunComponents, build_datamodule, build_module
from tunelab.training.finders.base import FinderResult
from tunelab.training.memory_profile import collate_rows, free_bytes, peak_bytes, plan_workload
from tunelab.training.module import FineTuner
from tunelab.training.out_of_memory import is_out_of_memory
from tunelab.training.trial_steps import preserve_model, run_trial_steps

USABLE_MEMORY_SHARE = 0.9  # of the free memory that may be used: the rest is for gaps between blocks, and for others


@dataclass(frozen=True)
class MemoryAttempt:
    """One size that was tried.

    Attributes:
        rows: How many of the longest rows one pass held.
        tokens: What they take up, pads counted.
        memory: Bytes at their largest; None where memory ran out, or would have by all signs.
    """

    rows: int
    tokens: int
    memory: int | None


def find_micro_tokens(components: RunComponents) -> FinderResult:
    """Try sizes; model and random numbers are afterwards as they were.

    Raises:
        ConfigError: If one row alone does not fit.
    """
    settings, model = components.settings, components.model
    device = select_training_device(str(settings.trainer.accelerator))
    loader = build_datamodule(components).loader("train")
    rows = longest_first(range(len(loader.examples)), loader.lengths)
    limit, attempts = min(settings.batch_size, len(rows)), list[MemoryAttempt]()
    with preserve_model(model):
        module = build_module(components, model)
        module.schedule = lambda step: 0.0  # a step that moves nothing takes the same memory
        free = free_bytes(device)
        room = None if free is None else int(USABLE_MEMORY_SHARE * free)

        def fits(count: int) -> bool:
            tokens = padded_tokens(loader, rows[:count])
            if device.type == "cpu" and free is not None and (extrapolate_memory(attempts, tokens) or 0) > free:
                taken = None  # a system kills a process that takes too much, so it is not tried
            else:
                taken = measure_attempt(components, module, loader, rows[:count], tokens, device)
            fine = taken is not None and (room is None or taken <= room)
            attempts.append(MemoryAttempt(count, tokens, taken))
            return fine

        fitting = largest_fitting(fits, limit)
    if not fitting:
        raise ConfigError(
            translate(
                "find=micro_tokens: the longest row alone ({loader:,} [token|tokens]) does not fit into "
                "{room} of {device}: shorten rows by data.max_tokens, take adapter=lora, or a smaller "
                "model",
                loader=padded_tokens(loader, rows[:1]),
                room="the memory" if room is None else format_bytes(room),
                device=device.type,
            )
        )
    return micro_tokens_result(
        attempts, padded_tokens(loader, rows[:fitting]), fitting, limit, room, settings.micro_tokens
    )


def padded_tokens(loader: BatchLoader, rows: Sequence[int]) -> int:
    """Tokens that rows take up in one pass, pads counted."""
    lengths = [loader.lengths[row] for row in rows]
    return sum(lengths) if loader.packed else len(lengths) * max(lengths)


def measure_attempt(
    components: RunComponents,
    module: FineTuner,
    loader: BatchLoader,
    rows: Sequence[int],
    tokens: int,
    device: torch.device,
) -> int | None:
    """Bytes of two steps over these rows and over what weighs most under such a `micro_tokens`; None if too many.

    The second step has what the first lacks: the optimizer's state, and gradients of an earlier pass.
    """
    loader.micro_tokens = tokens
    micros = [list(rows), *plan_workload(loader).heaviest]
    units = sum(loader.loss_weights[row] for micro in micros for row in micro)
    before = module.epoch_loss.metric_state  # PyTorch complains where memory is let go of that it has not recorded

    def work() -> None:
        step = Batch([collate_rows(loader, micro) for micro in micros], units)
        run_trial_steps(components, module, 2, [], [step, step])

    try:
        return peak_bytes(work, device)
    except (RuntimeError, MemoryError) as fault:
        if not is_out_of_memory(fault):
            raise
    finally:
        module.zero_grad(set_to_none=True)
        del before
    gc.collect()  # the fault held on to what its frames held
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def extrapolate_memory(attempts: Sequence[MemoryAttempt], tokens: int) -> float | None:
    """Bytes for so many tokens, on the line through the two largest that went well; None without two."""
    good = sorted({a.tokens: a.memory for a in attempts if a.memory is not None}.items())[-2:]
    if len(good) < 2:
        return None
    (few, less), (many, more) = good
    return more + (more - less) / (many - few) * (tokens - many)


def micro_tokens_result(
    attempts: Sequence[MemoryAttempt], value: int, fitting: int, limit: int, room: int | None, current: int
) -> FinderResult:
    """The finding in words and as a curve."""
    reasons = [
        translate(
            "{count} [size was|sizes were] tried on the longest rows, two optimizer steps each", count=len(attempts)
        )
    ]
    if fitting == limit:
        reasons.append(
            translate(
                "{fitting} of the longest rows, a whole step, fit into one pass: more would change nothing",
                fitting=fitting,
            )
        )
    else:
        reasons.append(
            translate(
                "{fitting} of the longest rows fit into one pass, {next_size} do not",
                fitting=fitting,
                next_size=fitting + 1,
            )
        )
    if room is not None:
        reasons.append(
            translate("a tenth of the free memory is left alone, so {room} could be used", room=format_bytes(room))
        )
    reasons.append(
        translate(
            "micro_tokens is {current} now; results are the same for every value, speed and memory are not",
            current=current,
        )
    )
    numbers = {"room": room, "attempts": [vars(attempt) for attempt in attempts]}
    return FinderResult(
        "micro_tokens", value, reasons, numbers, [memory_figure(attempts, room), attempts_table(attempts)]
    )


def memory_figure(attempts: Sequence[MemoryAttempt], room: int | None) -> Chart:
    """Memory over tokens."""
    known = sorted((a.tokens, a.memory / MEBIBYTE) for a in attempts if a.memory is not None)
    marks = [] if room is None else [ReferenceLine(room / MEBIBYTE, "room", axis="y")]
    series = Series("peak", [tokens for tokens, _ in known], [memory for _, memory in known])
    drawn = line_chart(
        [series],
        title=translate("Memory of a step"),
        x_label=translate("tokens in one pass"),
        y_label="MiB",
        y_scale="log",
        marks=marks,
    )
    return Chart("memory", drawn, translate("What two steps took at most, beside what was in memory before."))


def attempts_table(attempts: Sequence[MemoryAttempt]) -> Table:
    """Every attempt in its order."""
    rows = [
        (str(a.rows), f"{a.tokens:,}", translate("does not fit") if a.memory is None else format_bytes(a.memory))
        for a in attempts
    ]
    return Table("attempts", (translate("longest rows"), "tokens", "peak"), rows)


def largest_fitting(fits: Callable[[int], bool], limit: int) -> int:
    """The largest count of 1 to `limit` that fits, given that whatever is below one that fits, fits; 0 if 1 does not.

    It doubles from 1 until one does not fit, then halves the gap, so it never tries more than twice the answer and
    takes some two times log2(answer) tries.
    """
    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, min(2 * high, limit) if high < limit else limit + 1
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
