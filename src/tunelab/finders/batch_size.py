"""`find=batch_size`: the gradient noise scale of the run, at its first weights and again after some training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tunelab.analysis.number_format import format_number
from tunelab.assemble import Prepared, make_data, make_module, planned_steps
from tunelab.data.batching import cut, longest_first, mix, shuffled
from tunelab.data.loader import StepLoader
from tunelab.finders.finding import Finding
from tunelab.finders.noise_scale import NoiseScale, Pieces
from tunelab.inspection.passes import lay
from tunelab.inspection.trial_steps import take_steps
from tunelab.inspection.untouched import as_it_was
from tunelab.models.document_attention import on_device
from tunelab.module import FineTuner
from tunelab.reference import at_work
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.chart_page import Figure, Section, Table
from tunelab.report.charts.lines import line_chart

PIECE = 4  # sequences of one gradient
FEWEST = 64  # pieces, or as many as there are
MOST = 1024  # pieces
CLEAR = 2  # times the scale that must have been seen for it to be trusted
LATER = 50  # steps of training before the second look, or half of the run


@dataclass(frozen=True)
class Look:
    """The noise scale at one time of the run.

    Attributes:
        step: Optimizer steps before it.
        found: What was seen.
    """

    step: int
    found: NoiseScale


def find_batch_size(prepared: Prepared) -> Finding:
    """Measure twice; model and random numbers are afterwards as they were."""
    settings, model = prepared.settings, prepared.model
    later = min(LATER, planned_steps(settings, prepared.epoch_rows) // 2)
    loader = make_data(prepared).loader("train")
    with as_it_was(model):
        module = make_module(prepared, model)
        looks = [Look(0, measure(prepared, module, loader))]
        if later:
            take_steps(prepared, module, later, [])
            looks.append(Look(later, measure(prepared, module, loader)))
    return told(looks, settings.batch_size, len(prepared.examples["train"]))


def measure(prepared: Prepared, module: FineTuner, loader: StepLoader) -> NoiseScale:
    """The noise scale at the weights as they are, from as many rows as it takes to see it.

    Rows come in an order of their own, so that the first steps are not measured on what they have just learned.
    """
    order = shuffled(len(loader.examples), seed=mix(prepared.settings.seed, 1), epoch=0)
    size = max(1, min(PIECE, len(order) // 2))
    pieces = Pieces()
    with at_work(module.model, prepared.settings):
        for start in range(0, len(order) - size + 1, size):
            add(pieces, module, loader, order[start : start + size], seed=mix(prepared.settings.seed, start))
            if pieces.count % FEWEST == 0 and (
                pieces.count >= MOST or pieces.sequences >= CLEAR * pieces.estimate.scale
            ):
                break
    return pieces.estimate


def add(pieces: Pieces, module: FineTuner, loader: StepLoader, rows: Sequence[int], *, seed: int) -> None:
    """One more gradient, as training would compute it before clipping."""
    model = module.model
    torch.manual_seed(seed)  # dropout
    sorted_rows = longest_first(rows, loader.lengths)
    for micro in cut(sorted_rows, loader.lengths, micro_tokens=loader.micro_tokens, flat=loader.flat):
        module.regularizer.loss(on_device(lay(loader, micro), model.device))[1].backward()
    for weight in module.held(0):
        weight.grad = None
    learns = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in learns]
    pieces.add(gradients, units=sum(loader.units[row] for row in rows), sequences=len(rows))
    model.zero_grad(set_to_none=True)


def told(looks: Sequence[Look], batch_size: int, rows: int) -> Finding:
    """The finding in words and as a curve."""
    last = looks[-1].found
    said = [sentence(look) for look in looks]
    value = min(power_of_two(last.scale), rows) if last.signal > 0 else None
    if value is None:
        said.append(f"so no batch of up to {last.sequences:,} sequences is too large; batch_size is {batch_size} now")
    else:
        other = "" if value == batch_size else f", one over {value} {last.progress(value):.0%}"
        said.append(
            f"a step over batch_size={batch_size} makes {last.progress(batch_size):.0%} of the progress of a step "
            f"without noise{other}: beyond {value}, twice the sequences save less than a third of the steps"
        )
        said.append(
            "the scale grows while the loss falls, and Adam's scaling is not in it: take it as an order of size"
        )
    numbers = {
        "looks": [
            {
                "step": look.step,
                "sequences": look.found.sequences,
                "noise": look.found.noise,
                "signal": look.found.signal,
                "scale": look.found.scale if look.found.signal > 0 else None,
            }
            for look in looks
        ]
    }
    pictures: list[Section] = [curve(looks, batch_size), table(looks)]
    return Finding("batch_size", value, said, numbers, pictures)


def sentence(look: Look) -> str:
    """One look in words."""
    when = "at the first weights" if not look.step else f"after {look.step} steps"
    seen = f"from {look.found.sequences:,} sequences"
    if look.found.signal <= 0:
        return f"{when} noise hides the gradient of {seen.removeprefix('from ')}: the scale is beyond that"
    doubt = "" if look.found.sequences >= CLEAR * look.found.scale else "; that is few for it, so it is uncertain"
    return f"{when} the gradient noise scale is {format_number(look.found.scale)} sequences ({seen}{doubt})"


def power_of_two(scale: float) -> int:
    """The nearest power of two, by factors; at least 1."""
    return int(2 ** max(0, round(torch.tensor(scale).log2().item())))


def curve(looks: Sequence[Look], batch_size: int) -> Figure:
    """Progress of a step over its size."""
    sizes = [2**power for power in range(15)]
    known = [look for look in looks if look.found.signal > 0]
    series = [
        Series(f"after {look.step} steps", sizes, [look.found.progress(size) for size in sizes]) for look in known
    ]
    drawn = line_chart(
        series, title="Progress of a step", x_label="sequences in a step", y_label="share of a noiseless step",
        x_scale="log", marks=[ReferenceLine(batch_size, f"batch_size={batch_size}")],
    )  # fmt: skip
    return Figure(
        drawn, "Up to the noise scale, twice the sequences make nearly twice the progress; beyond, little more."
    )


def table(looks: Sequence[Look]) -> Table:
    """All that was measured."""
    head = ("steps before", "sequences", "noise: trace of the covariance", "signal: squared gradient", "noise scale")
    rows = [
        tuple(
            format_number(value) for value in (x.step, x.found.sequences, x.found.noise, x.found.signal, x.found.scale)
        )
        for x in looks
    ]
    return Table(head, rows)
