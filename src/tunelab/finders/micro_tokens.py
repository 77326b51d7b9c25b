"""`find=micro_tokens`: the largest that fits, tried on the longest rows with whole optimizer steps."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunelab.assemble import Prepared, make_data, make_module
from tunelab.data.batching import longest_first
from tunelab.data.examples import Step
from tunelab.data.loader import StepLoader
from tunelab.errors import ConfigError
from tunelab.finders.bisection import largest
from tunelab.finders.finding import Finding
from tunelab.inspection.passes import lay
from tunelab.inspection.peak import free_bytes, peak_bytes
from tunelab.inspection.trial_steps import take_steps
from tunelab.inspection.untouched import as_it_was
from tunelab.inspection.workload import workload
from tunelab.module import FineTuner
from tunelab.out_of_memory import is_full
from tunelab.reference import training_device
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.chart_page import Figure, Table
from tunelab.report.charts.lines import line_chart

SHARE = 0.9  # of the free memory that may be used: the rest is for gaps between blocks, and for others
MIB = 2**20


@dataclass(frozen=True)
class Attempt:
    """One size that was tried.

    Attributes:
        rows: How many of the longest rows one pass held.
        tokens: What they take up, pads counted.
        memory: Bytes at their largest; None where memory ran out, or would have by all signs.
    """

    rows: int
    tokens: int
    memory: int | None


def find_micro_tokens(prepared: Prepared) -> Finding:
    """Try sizes; model and random numbers are afterwards as they were.

    Raises:
        ConfigError: If one row alone does not fit.
    """
    settings, model = prepared.settings, prepared.model
    device = training_device(str(settings.trainer["accelerator"]))
    loader = make_data(prepared).loader("train")
    rows = longest_first(range(len(loader.examples)), loader.lengths)
    limit, attempts = min(settings.batch_size, len(rows)), list[Attempt]()
    with as_it_was(model):
        module = make_module(prepared, model)
        module.schedule = lambda step: 0.0  # a step that moves nothing takes the same memory
        free = free_bytes(device)
        room = None if free is None else int(SHARE * free)

        def fits(count: int) -> bool:
            tokens = laid(loader, rows[:count])
            if device.type == "cpu" and free is not None and (foreseen(attempts, tokens) or 0) > free:
                taken = None  # a system kills a process that takes too much, so it is not tried
            else:
                taken = memory_of(prepared, module, loader, rows[:count], tokens, device)
            fine = taken is not None and (room is None or taken <= room)
            attempts.append(Attempt(count, tokens, taken))
            return fine

        found = largest(fits, limit)
    if not found:
        raise ConfigError(
            f"find=micro_tokens: the longest row alone ({laid(loader, rows[:1]):,} tokens) does not fit into "
            f"{'the memory' if room is None else mebibytes(room)} of {device.type}: shorten rows by data.max_tokens, "
            "take adapter=lora, or a smaller model"
        )
    return told(attempts, laid(loader, rows[:found]), found, limit, room, settings.micro_tokens)


def laid(loader: StepLoader, rows: Sequence[int]) -> int:
    """Tokens that rows take up in one pass, pads counted."""
    lengths = [loader.lengths[row] for row in rows]
    return sum(lengths) if loader.flat else len(lengths) * max(lengths)


def memory_of(
    prepared: Prepared,
    module: FineTuner,
    loader: StepLoader,
    rows: Sequence[int],
    tokens: int,
    device: torch.device,
) -> int | None:
    """Bytes of two steps over these rows and over what weighs most under such a `micro_tokens`; None if too many.

    The second step has what the first lacks: the optimizer's state, and gradients of an earlier pass.
    """
    loader.micro_tokens = tokens
    micros = [list(rows), *workload(loader).heaviest]
    units = sum(loader.units[row] for micro in micros for row in micro)
    before = module.epoch_loss.metric_state  # PyTorch complains where memory is let go of that it has not recorded

    def work() -> None:
        step = Step([lay(loader, micro) for micro in micros], units)
        take_steps(prepared, module, 2, [], [step, step])

    try:
        return peak_bytes(work, device)
    except (RuntimeError, MemoryError) as fault:
        if not is_full(fault):
            raise
    finally:
        module.zero_grad(set_to_none=True)
        del before
    gc.collect()  # the fault held on to what its frames held
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def foreseen(attempts: Sequence[Attempt], tokens: int) -> float | None:
    """Bytes for so many tokens, on the line through the two largest that went well; None without two."""
    good = sorted({a.tokens: a.memory for a in attempts if a.memory is not None}.items())[-2:]
    if len(good) < 2:
        return None
    (few, less), (many, more) = good
    return more + (more - less) / (many - few) * (tokens - many)


def told(attempts: Sequence[Attempt], value: int, found: int, limit: int, room: int | None, current: int) -> Finding:
    """The finding in words and as a curve."""
    said = [f"{len(attempts)} sizes were tried on the longest rows, two optimizer steps each"]
    if found == limit:
        said.append(f"{found} of the longest rows, a whole step, fit into one pass: more would change nothing")
    else:
        said.append(f"{found} of the longest rows fit into one pass, {found + 1} do not")
    if room is not None:
        said.append(f"a tenth of the free memory is left alone, so {mebibytes(room)} could be used")
    said.append(f"micro_tokens is {current} now; results are the same for every value, speed and memory are not")
    numbers = {"room": room, "attempts": [vars(attempt) for attempt in attempts]}
    return Finding("micro_tokens", value, said, numbers, [curve(attempts, room), table(attempts)])


def curve(attempts: Sequence[Attempt], room: int | None) -> Figure:
    """Memory over tokens."""
    known = sorted((a.tokens, a.memory / MIB) for a in attempts if a.memory is not None)
    marks = [] if room is None else [ReferenceLine(room / MIB, "room", axis="y")]
    series = Series("peak", [tokens for tokens, _ in known], [memory for _, memory in known])
    drawn = line_chart(
        [series], title="Memory of a step", x_label="tokens in one pass", y_label="MiB", y_scale="log", marks=marks
    )
    return Figure(drawn, "What two steps took at most, beside what was in memory before.")


def table(attempts: Sequence[Attempt]) -> Table:
    """Every attempt in its order."""
    rows = [
        (str(a.rows), f"{a.tokens:,}", "does not fit" if a.memory is None else mebibytes(a.memory)) for a in attempts
    ]
    return Table(("longest rows", "tokens", "peak"), rows)


def mebibytes(size: int) -> str:
    """Bytes as people compare them."""
    return f"{size / MIB:,.1f} MiB"
