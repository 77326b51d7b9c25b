"""The inspection of a run in words, for the terminal, and as one HTML page."""

import math
from collections.abc import Sequence

from tunelab.analysis.number_format import MEBIBYTE, format_bytes, format_duration, format_number
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import Block, CellValue, Chart, Document, Paragraph, Section, Table
from tunelab.report.render import render_html
from tunelab.training.run_inspection import RunInspection


def inspection_page(title: str, found: RunInspection) -> str:
    """The whole page."""
    explanation = (
        "Root mean square of what leaves each layer, and of the loss's gradient there, at the first weights. "
        "A network learns best when neither changes its scale much from layer to layer (Glorot and Bengio, 2010)."
    )
    layer_columns = ("part", "parameters", "trainable", "signal", "share added", "gradient")
    memory = memory_lines(found)
    sections = [
        Section("", [Paragraph(f"At the first weights: {found.verdict.word}. " + join_sentences(health_lines(found)))]),
        Section("Model", [Table("model", ("what", "value"), list(architecture_lines(found).items()))]),
        Section(
            "Work",
            [Paragraph(f"{what[:1].upper()}{what[1:]}: {words}.") for what, words in workload_lines(found).items()],
        ),
        Section("Learning rate", [Chart("learning_rate", rate_chart(found), rate_text(found))]),
        Section(
            "Memory",
            [
                Chart("memory", memory_chart(found), join_sentences(memory_fit_lines(found))),
                Table("memory", ("what", "size"), [(what, format_bytes(size)) for what, size, _ in memory]),
                Paragraph("; ".join(f"{what}: {why}" for what, _, why in memory) + "."),
            ],
        ),
        Section(
            "Signals and gradients",
            [Paragraph(explanation), *signal_charts(found), Table("layers", layer_columns, layer_rows(found))],
        ),
    ]
    return render_html(Document(title, "", sections), interactive=False)


def join_sentences(lines: list[str]) -> str:
    """Lines as one paragraph."""
    return " ".join(f"{line[:1].upper()}{line[1:]}." for line in lines)


def rate_chart(found: RunInspection) -> str:
    """The curve of the rate."""
    curve = found.curve
    marks = [ReferenceLine(curve.warmup, f"warm-up ends at {curve.warmup:,}")] if 0 < curve.warmup < found.steps else []
    series = Series("learning rate", curve.steps, curve.rates)
    return line_chart([series], title="Learning rate", x_label="optimizer step", y_label="learning rate", marks=marks)


def memory_chart(found: RunInspection) -> str:
    """What takes how much."""
    lines = memory_lines(found)
    sizes = [size / MEBIBYTE for _, size, _ in lines] + [found.memory.peak / MEBIBYTE]
    names = [what for what, _, _ in lines] + ["peak"]
    return bar_chart(names, [Bars("MiB", sizes)], title="Memory on one device", value_label="MiB", level=True)


def signal_charts(found: RunInspection) -> list[Block]:
    """Signals up and gradients down, each along the depth; a sentence where the model has no stack of layers."""
    seen = found.signals
    if len(seen.names) < 2:
        return [Paragraph("No stack of layers was found in this model, so there is nothing to draw.")]
    places = list(range(len(seen.names)))
    pictures = [
        ("Signal of each layer", "signal", seen.forward, f"growth per layer {format_number(found.verdict.growth)}"),
        (
            "Gradient at each layer",
            "gradient",
            seen.backward,
            f"growth per layer on the way down {format_number(found.verdict.gradient_growth)}",
        ),
    ]
    return [
        Chart(
            name,
            line_chart(
                [Series(name, places, values, tooltip_names=seen.names)],
                title=title,
                x_label="layer (0: embeddings)",
                y_label="root mean square",
                y_scale="log",
            ),
            words,
        )
        for title, name, values, words in pictures
    ]


def architecture_lines(found: RunInspection) -> dict[str, str]:
    """The model in numbers."""
    shown = {
        name: f"{size:,}" if isinstance(size, int) else str(size)
        for name, size in found.sizes.items()
        if size is not None
    }
    total, learns = int(found.sizes["parameters"] or 0), int(found.sizes["trainable"] or 0)
    shown["trainable"] += f" ({learns / max(1, total):.3%})" if learns < total else " (all)"
    return shown


def workload_lines(found: RunInspection) -> dict[str, str]:
    """Steps, tokens, arithmetic, time."""
    load = found.work
    per_token = found.operations_per_token
    lines = {
        "steps": f"{found.steps:,}, of which {found.curve.warmup:,} are warm-up; {load.steps:,} per epoch",
        "rows per epoch": f"{load.rows:,}",
        "tokens per epoch": f"{load.tokens:,}, {load.tokens / max(1, load.steps):,.0f} per step",
        "passes per step": f"{load.passes / max(1, load.steps):.3g}; {load.padding:.1%} of their positions are padding",
        "FLOPs per token": (
            f"{format_number(per_token)} forward and backward; {format_number(per_token * found.tokens)} in all"
        ),
    }
    if (per_second := found.speed.tokens_per_second) is not None:
        lines["speed"] = (
            f"{format_number(per_second)} tokens per second on {found.speed.device}, "
            f"{format_number(per_second * per_token)} FLOPs per second"
        )
    lines["expected time"] = expected_time_text(found)
    return lines


def expected_time_text(found: RunInspection) -> str:
    """How long training alone will take."""
    if found.seconds is None:
        return f"unknown: {found.speed.fault or 'too few steps to tell'}"
    mean, fast, slow = (format_duration(seconds, 2) for seconds in found.seconds)
    steps = len(found.speed.seconds)
    return f"{mean} of training ({fast} to {slow} by {steps} steps that were tried), without validations"


def memory_lines(found: RunInspection) -> list[tuple[str, int, str]]:
    """What takes how many bytes, and why."""
    needs = found.memory
    lines = [
        ("weights", needs.weights, "parameters and buffers"),
        ("gradients", needs.gradients, "of all that learns"),
        ("optimizer", needs.optimizer, "its state, from the first step on"),
        ("averages", needs.averages, "copies of the weights that regularization keeps"),
        ("activations", needs.activations, "of the heaviest forward and backward pass under micro_tokens"),
        ("workspace", needs.workspace, "of matrix products, from the first one on"),
        ("optimizer's step", needs.step, "in passing, while no activations stand"),
    ]
    return [line for line in lines if line[1] or line[0] in ("optimizer", "gradients")]


def memory_fit_lines(found: RunInspection) -> list[str]:
    """The peak, and whether it fits."""
    needs, said = found.memory, []
    said.append(f"peak {format_bytes(needs.peak)}: not all of it stands at the same time")
    if needs.passes.share < 1:
        said.append(
            f"activations are scaled up from {needs.passes.share:.0%} of the heaviest micro-batch, which does not fit"
        )
    if found.room is not None and needs.peak > found.room:
        said.append(
            f"{format_bytes(found.room)} are there, so this will not fit: lower micro_tokens (python train.py "
            "find=micro_tokens finds the largest that fits), or take adapter=lora"
        )
    elif found.room is not None:
        said.append(f"{format_bytes(found.room)} are there, so it fits")
    if found.speed.memory is not None:
        said.append(f"the steps that were tried took {format_bytes(found.speed.memory)} at most")
    return said


def rate_text(found: RunInspection) -> str:
    """The learning rate in words."""
    curve = found.curve
    if not curve.rates:
        return "no step is planned"
    peak = max(curve.rates)
    rise = f"{curve.warmup:,} steps of warm-up, " if curve.warmup else ""
    end = "then validations decide" if curve.follows else f"{format_number(curve.rates[-1])} at the last step"
    return f"{rise}peak {format_number(peak)}, {end}"


def health_lines(found: RunInspection) -> list[str]:
    """The verdict on the first signals, and what to do about it."""
    verdict = found.verdict
    advice = {
        "vanishing": (
            "nothing reaches the other end of the network: raise model.initial_std (null suits most), take "
            "model.init=xavier, a normalisation, fewer layers, or another activation"
        ),
        "exploding": (
            "the first steps will diverge or crawl: lower model.initial_std (null suits most), take "
            "model.init=depth_scaled, a normalisation, or fewer layers"
        ),
    }
    return [*verdict.reasons, *([advice[verdict.word]] if verdict.word in advice else [])]


def layer_rows(found: RunInspection) -> list[Sequence[CellValue]]:
    """A row per part: name, parameters, trainable, signal, change, gradient."""
    signals = found.signals
    places = {name: place for place, name in enumerate(signals.names)}
    rows: list[Sequence[CellValue]] = []
    for part in found.parts:
        place = places.get(part.name)
        measures = [
            None if place is None else each[place] for each in (signals.forward, signals.added, signals.backward)
        ]
        rows.append((part.name, part.parameters, part.trainable, *measures))
    return rows


SPARK_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], columns: int = 60, *, log: bool = False) -> str:
    """Values as blocks of eight heights, from the smallest to the largest of them.

    Args:
        values: From left to right; what has no place (not finite; 0 or less with `log`) leaves a gap.
        columns: Most blocks; of more values, evenly spaced ones are shown, the first and the last among them.
        log: Whether heights follow the logarithm.
    """
    if len(values) > columns:
        values = [values[round(place * (len(values) - 1) / (columns - 1))] for place in range(columns)]
    heights = [spark_height(value, log=log) for value in values]
    known = [value for value in heights if math.isfinite(value)]
    if not known:
        return " " * len(heights)
    low, span = min(known), max(known) - min(known)
    steps = len(SPARK_LEVELS) - 1
    return "".join(
        SPARK_LEVELS[round((value - low) / span * steps) if span else steps // 2] if math.isfinite(value) else " "
        for value in heights
    )


def spark_height(value: float, *, log: bool) -> float:
    """Where a value stands; nan where it has no place."""
    if not math.isfinite(value) or (log and value <= 0):
        return math.nan
    return math.log(value) if log else value
