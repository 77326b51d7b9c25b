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


def inspection_page(title: str, inspection: RunInspection) -> str:
    """The inspection as an HTML page."""
    explanation = (
        "Root mean square of what leaves each layer, and of the loss's gradient there, at the first weights. "
        "A network learns best when neither changes its scale much from layer to layer (Glorot and Bengio, 2010)."
    )
    layer_columns = ("part", "parameters", "trainable", "signal", "share added", "gradient")
    memory = memory_lines(inspection)
    fit = join_sentences([*memory_fit_lines(inspection), *strategy_lines(inspection)])
    sections = [
        Section(
            "",
            [
                Paragraph(
                    f"At the first weights: {inspection.signal_verdict.health}. "
                    + join_sentences(health_lines(inspection))
                )
            ],
        ),
        Section(
            "Model and work",
            [
                Table("model", ("model", "value"), list(architecture_lines(inspection).items())),
                Table("work", ("work", "amount"), list(workload_lines(inspection).items())),
                Chart("learning_rate", rate_chart(inspection), rate_text(inspection)),
            ],
        ),
        Section(
            "Memory",
            [
                Chart("memory", memory_chart(inspection), fit),
                Table(
                    "memory",
                    ("part", "size", "what it is"),
                    [(what, format_bytes(size), why) for what, size, why in memory],
                ),
            ],
        ),
        Section(
            "Signals and gradients",
            [
                Paragraph(explanation),
                *signal_charts(inspection),
                Table("layers", layer_columns, layer_rows(inspection)),
            ],
        ),
    ]
    return render_html(Document(title, "", sections), interactive=False)


def join_sentences(lines: list[str]) -> str:
    """Lines as one paragraph of sentences."""
    return " ".join(f"{line[:1].upper()}{line[1:]}." for line in lines)


def rate_chart(inspection: RunInspection) -> str:
    """The learning rate over the steps."""
    curve = inspection.learning_rates
    marks = (
        [ReferenceLine(curve.warmup, f"warm-up ends at {curve.warmup:,}")]
        if 0 < curve.warmup < inspection.planned_steps
        else []
    )
    series = Series("learning rate", curve.steps, curve.rates)
    return line_chart([series], title="Learning rate", x_label="optimizer step", y_label="", marks=marks)


def memory_chart(inspection: RunInspection) -> str:
    """The parts of the peak memory as bars."""
    lines = memory_lines(inspection)
    sizes = [size / MEBIBYTE for _, size, _ in lines] + [inspection.memory.peak / MEBIBYTE]
    names = [what for what, _, _ in lines] + ["peak"]
    return bar_chart(names, [Bars("MiB", sizes)], title="Memory on one device", value_label="MiB", level=True)


def signal_charts(inspection: RunInspection) -> list[Block]:
    """Signals and gradients along the depth; a sentence where the model has no stack of layers."""
    seen = inspection.signals
    if len(seen.names) < 2:
        return [Paragraph("No stack of layers was found in this model, so there is nothing to draw.")]
    places = list(range(len(seen.names)))
    pictures = [
        (
            "Signal of each layer",
            "signal",
            seen.forward,
            f"growth per layer {format_number(inspection.signal_verdict.growth)}",
        ),
        (
            "Gradient at each layer",
            "gradient",
            seen.backward,
            f"growth per layer on the way down {format_number(inspection.signal_verdict.gradient_growth)}",
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


def architecture_lines(inspection: RunInspection) -> dict[str, str]:
    """The architecture by name and value."""
    facts = {
        name: f"{size:,}" if isinstance(size, int) else str(size)
        for name, size in inspection.architecture.items()
        if size is not None
    }
    total, learns = int(inspection.architecture["parameters"] or 0), int(inspection.architecture["trainable"] or 0)
    facts["trainable"] += f" ({learns / max(1, total):.3%})" if learns < total else " (all)"
    return facts


def workload_lines(inspection: RunInspection) -> dict[str, str]:
    """Steps, tokens, FLOPs and time by name."""
    load, warmup = inspection.workload, inspection.learning_rates.warmup
    per_token = inspection.flops_per_token
    total = per_token * inspection.planned_tokens
    lines = {
        "steps": f"{inspection.planned_steps:,}, of which {warmup:,} are warm-up; {load.steps:,} per epoch",
        "rows per epoch": f"{load.rows:,}",
        "tokens per epoch": f"{load.tokens:,}, {load.tokens / max(1, load.steps):,.0f} per step",
        "passes per step": f"{load.passes / max(1, load.steps):.3g}; {load.padding:.1%} of their positions are padding",
        "FLOPs per token": (f"{format_number(per_token)} forward and backward; {format_number(total)} in all"),
    }
    if (per_second := inspection.speed.tokens_per_second) is not None:
        lines["speed"] = (
            f"{format_number(per_second)} tokens per second on {inspection.speed.device}, "
            f"{format_number(per_second * per_token)} FLOPs per second"
        )
    lines["expected time"] = expected_time_text(inspection)
    return lines


def expected_time_text(inspection: RunInspection) -> str:
    """The expected time of training, without validations."""
    if inspection.expected_seconds is None:
        return f"unknown: {inspection.speed.fault or 'too few steps to tell'}"
    mean, fast, slow = (format_duration(seconds, 2) for seconds in inspection.expected_seconds)
    steps = len(inspection.speed.seconds)
    return f"{mean} of training ({fast} to {slow} by {steps} steps that were tried), without validations"


def memory_lines(inspection: RunInspection) -> list[tuple[str, int, str]]:
    """The parts of the memory: name, bytes, explanation."""
    needs = inspection.memory
    lines = [
        ("weights", needs.weights, "parameters and buffers"),
        ("gradients", needs.gradients, "of all that learns"),
        ("optimizer", needs.optimizer_state, "its state, from the first step on"),
        ("averages", needs.averages, "copies of the weights that regularization keeps"),
        ("activations", needs.activations, "of the heaviest forward and backward pass under micro_tokens"),
        ("workspace", needs.workspace, "of matrix products, from the first one on"),
        ("optimizer's step", needs.step_buffers, "temporary, after activations are freed"),
    ]
    return [line for line in lines if line[1] or line[0] in ("optimizer", "gradients")]


def memory_fit_lines(inspection: RunInspection) -> list[str]:
    """Sentences on the peak memory, and whether it fits."""
    needs, available, lines = inspection.memory, inspection.available_memory, list[str]()
    lines.append(f"peak {format_bytes(needs.peak)}: not all parts are needed at the same time")
    if needs.passes.share < 1:
        lines.append(
            f"activations are scaled up from {needs.passes.share:.0%} of the heaviest micro-batch, which does not fit"
        )
    if available is not None and needs.peak > available:
        lines.append(
            f"needs {format_bytes(needs.peak)}, {format_bytes(available)} available: does not fit; lower micro_tokens "
            "(python train.py find=micro_tokens finds the largest that fits), or take adapter=lora"
        )
    elif available is not None:
        lines.append(f"needs {format_bytes(needs.peak)}, {format_bytes(available)} available: fits")
    if inspection.speed.memory is not None:
        lines.append(f"the trial steps took {format_bytes(inspection.speed.memory)} at most")
    return lines


def strategy_lines(inspection: RunInspection) -> list[str]:
    """What each device takes and sends in a step, of several that share the run."""
    return [
        f"trainer={cost.strategy} on {cost.devices} devices: {format_bytes(cost.memory)} on each, which sends "
        f"{format_bytes(cost.traffic)} a step"
        for cost in inspection.strategies
    ]


def rate_text(inspection: RunInspection) -> str:
    """The learning rate schedule in words."""
    curve = inspection.learning_rates
    if not curve.rates:
        return "no step is planned"
    peak = max(curve.rates)
    rise = f"{curve.warmup:,} steps of warm-up, " if curve.warmup else ""
    end = (
        "then validations decide" if curve.follows_validation else f"{format_number(curve.rates[-1])} at the last step"
    )
    return f"{rise}peak {format_number(peak)}, {end}"


def health_lines(inspection: RunInspection) -> list[str]:
    """The verdict on the first signals, and the remedy."""
    verdict = inspection.signal_verdict
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
    return [*verdict.reasons, *([advice[verdict.health]] if verdict.health in advice else [])]


def layer_rows(inspection: RunInspection) -> list[Sequence[CellValue]]:
    """A row per part: name, parameters, trainable, signal, change, gradient."""
    signals = inspection.signals
    index_of_layer = {name: index for index, name in enumerate(signals.names)}
    rows: list[Sequence[CellValue]] = []
    for part in inspection.layers:
        index = index_of_layer.get(part.name)
        measures = [
            None if index is None else each[index]
            for each in (signals.forward, signals.relative_change, signals.backward)
        ]
        rows.append((part.name, part.parameters, part.trainable, *measures))
    return rows


SPARK_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], columns: int = 60, *, log: bool = False) -> str:
    """Values as block characters of eight heights, from the smallest to the largest of them.

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
    """The height of a value; nan where it cannot be drawn."""
    if not math.isfinite(value) or (log and value <= 0):
        return math.nan
    return math.log(value) if log else value
