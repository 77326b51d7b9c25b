"""The inspection of a run in words, for the terminal, and as one HTML page."""

import math
from collections.abc import Sequence

from tunelab.analysis.number_format import MEBIBYTE, format_bytes, format_duration, format_number
from tunelab.language.translation import localize, message, messages, translate
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import Block, CellValue, Chart, Document, Paragraph, Section, Table
from tunelab.report.render import render_html
from tunelab.training.run_inspection import RunInspection


def inspection_page(title: str, inspection: RunInspection) -> str:
    """The inspection as an HTML page."""
    explanation = translate(
        "Root mean square of what leaves each layer, and of the loss's gradient there, at the first weights. "
        "A network learns best when neither changes its scale much from layer to layer (Glorot and Bengio, 2010)."
    )
    layer_columns = messages("part", "parameters", "trainable", "signal", "share added", "gradient")
    memory = memory_lines(inspection)
    fit = join_sentences([*memory_fit_lines(inspection), *strategy_lines(inspection)])
    sections = [
        Section(
            "",
            [
                Paragraph(
                    translate("At the first weights: {health}. ", health=translate(inspection.signal_verdict.health))
                    + join_sentences(health_lines(inspection))
                )
            ],
        ),
        Section(
            message("Model and work"),
            [
                Table("model", messages("model", "value"), list(architecture_lines(inspection).items())),
                Table("work", messages("work", "amount"), list(workload_lines(inspection).items())),
                Chart("learning_rate", rate_chart(inspection), rate_text(inspection)),
            ],
        ),
        Section(
            message("Memory"),
            [
                Chart("memory", memory_chart(inspection), fit),
                Table(
                    "memory",
                    messages("part", "size", "what it is"),
                    [(what, format_bytes(size), why) for what, size, why in memory],
                ),
            ],
        ),
        Section(
            message("Signals and gradients"),
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
    # a setting such as trainer=ddp keeps its small letter
    firsts = [line if "=" in line.split(" ")[0] else line[:1].upper() + line[1:] for line in lines]
    return " ".join(f"{line}." for line in firsts)


def rate_chart(inspection: RunInspection) -> str:
    """The learning rate over the steps."""
    curve = inspection.learning_rates
    marks = (
        [ReferenceLine(curve.warmup, translate("warm-up ends at {step:,}", step=curve.warmup))]
        if 0 < curve.warmup < inspection.planned_steps
        else []
    )
    series = Series(translate("learning rate"), curve.steps, curve.rates)
    return line_chart(
        [series], title=translate("Learning rate"), x_label=translate("optimizer step"), y_label="", marks=marks
    )


def memory_chart(inspection: RunInspection) -> str:
    """The parts of the peak memory as bars."""
    lines = memory_lines(inspection)
    sizes = [size / MEBIBYTE for _, size, _ in lines] + [inspection.memory.peak / MEBIBYTE]
    names = [localize(what) for what, _, _ in lines] + [translate("peak")]
    return bar_chart(
        names, [Bars("MiB", sizes)], title=translate("Memory on one device"), value_label="MiB", level=True
    )


def signal_charts(inspection: RunInspection) -> list[Block]:
    """Signals and gradients along the depth; a sentence where the model has no stack of layers."""
    seen = inspection.signals
    if len(seen.names) < 2:
        return [Paragraph(translate("No stack of layers was found in this model, so there is nothing to draw."))]
    places = list(range(len(seen.names)))
    pictures = [
        (
            translate("Signal of each layer"),
            "signal",
            seen.forward,
            translate("growth per layer {growth}", growth=format_number(inspection.signal_verdict.growth)),
        ),
        (
            translate("Gradient at each layer"),
            "gradient",
            seen.backward,
            translate(
                "growth per layer on the way down {gradient_growth}",
                gradient_growth=format_number(inspection.signal_verdict.gradient_growth),
            ),
        ),
    ]
    return [
        Chart(
            name,
            line_chart(
                [Series(name, places, values, tooltip_names=seen.names)],
                title=title,
                x_label=translate("layer (0: embeddings)"),
                y_label=translate("root mean square"),
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
    facts["trainable"] += f" ({learns / max(1, total):.3%})" if learns < total else translate(" (all)")
    return facts


def workload_lines(inspection: RunInspection) -> dict[str, str]:
    """Steps, tokens, FLOPs and time by name."""
    load, warmup = inspection.workload, inspection.learning_rates.warmup
    per_token = inspection.flops_per_token
    total = per_token * inspection.planned_tokens
    lines = {
        translate("steps"): translate(
            "{planned_steps:,}, of which {warmup:,} are warm-up; {steps:,} per epoch",
            planned_steps=inspection.planned_steps,
            warmup=warmup,
            steps=load.steps,
        ),
        translate("rows per epoch"): f"{load.rows:,}",
        translate("tokens per epoch"): translate(
            "{tokens:,}, {each:,.0f} per step", tokens=load.tokens, each=load.tokens / max(1, load.steps)
        ),
        translate("passes per step"): translate(
            "{passes:.3g}; {padding:.1%} of their positions are padding",
            passes=load.passes / max(1, load.steps),
            padding=load.padding,
        ),
        translate("FLOPs per token"): (
            translate(
                "{per_token} forward and backward; {total} in all",
                per_token=format_number(per_token),
                total=format_number(total),
            )
        ),
    }
    if (per_second := inspection.speed.tokens_per_second) is not None:
        lines[translate("speed")] = translate(
            "{tokens} [token|tokens] per second on {device}, {flops} FLOPs per second",
            tokens=format_number(per_second),
            device=inspection.speed.device,
            flops=format_number(per_second * per_token),
        )
    lines[translate("expected time")] = expected_time_text(inspection)
    return lines


def expected_time_text(inspection: RunInspection) -> str:
    """The expected time of training, without validations."""
    if inspection.expected_seconds is None:
        return translate("unknown: {reason}", reason=inspection.speed.fault or translate("too few steps to tell"))
    mean, fast, slow = (format_duration(seconds, 2) for seconds in inspection.expected_seconds)
    steps = len(inspection.speed.seconds)
    return translate(
        "{mean} of training ({fast} to {slow} by {steps} [step|steps] tried), without validations",
        mean=mean,
        fast=fast,
        slow=slow,
        steps=steps,
    )


def memory_lines(inspection: RunInspection) -> list[tuple[str, int, str]]:
    """The parts of the memory: name, bytes, explanation."""
    needs = inspection.memory
    lines = [
        (message("weights"), needs.weights, translate("parameters and buffers")),
        (message("gradients"), needs.gradients, translate("of all that learns")),
        (message("optimizer"), needs.optimizer_state, translate("its state, from the first step on")),
        (message("averages"), needs.averages, translate("copies of the weights that regularization keeps")),
        (
            message("activations"),
            needs.activations,
            translate("of the heaviest forward and backward pass under micro_tokens"),
        ),
        (message("workspace"), needs.workspace, translate("of matrix products, from the first one on")),
        (message("optimizer's step"), needs.step_buffers, translate("temporary, after activations are freed")),
    ]
    return [line for line in lines if line[1] or line[0] in ("optimizer", "gradients")]


def memory_fit_lines(inspection: RunInspection) -> list[str]:
    """Sentences on the peak memory, and whether it fits."""
    needs, available, lines = inspection.memory, inspection.available_memory, list[str]()
    lines.append(translate("peak {peak}: not all parts are needed at the same time", peak=format_bytes(needs.peak)))
    if needs.passes.share < 1:
        lines.append(
            translate(
                "activations are scaled up from {share:.0%} of the heaviest micro-batch, which does not fit",
                share=needs.passes.share,
            )
        )
    if available is not None and needs.peak > available:
        lines.append(
            translate(
                "needs {peak}, {available} available: does not fit; lower micro_tokens (python "
                "train.py find=micro_tokens finds the largest that fits), set "
                "memory.activation_checkpointing=true, or take adapter=lora",
                peak=format_bytes(needs.peak),
                available=format_bytes(available),
            )
        )
    elif available is not None:
        lines.append(
            translate(
                "needs {peak}, {available} available: fits",
                peak=format_bytes(needs.peak),
                available=format_bytes(available),
            )
        )
    if inspection.speed.memory is not None:
        lines.append(translate("the trial steps took {memory} at most", memory=format_bytes(inspection.speed.memory)))
    return lines


def strategy_lines(inspection: RunInspection) -> list[str]:
    """What each device takes and sends in a step, of several that share the run."""
    return [
        translate(
            "trainer={strategy} on {devices} [device|devices]: {memory} on each, which sends {traffic} a step",
            strategy=cost.strategy,
            devices=cost.devices,
            memory=format_bytes(cost.memory),
            traffic=format_bytes(cost.traffic),
        )
        for cost in inspection.strategies
    ]


def rate_text(inspection: RunInspection) -> str:
    """The learning rate schedule in words."""
    curve = inspection.learning_rates
    if not curve.rates:
        return translate("no step is planned")
    peak = max(curve.rates)
    rise = translate("{warmup:,} [step|steps] of warm-up, ", warmup=curve.warmup) if curve.warmup else ""
    end = (
        translate("then validations decide")
        if curve.follows_validation
        else translate("{rates} at the last step", rates=format_number(curve.rates[-1]))
    )
    return translate("{rise}peak {peak}, {end}", rise=rise, peak=format_number(peak), end=end)


def health_lines(inspection: RunInspection) -> list[str]:
    """The verdict on the first signals, and the remedy."""
    verdict = inspection.signal_verdict
    advice = {
        "vanishing": (
            translate(
                "nothing reaches the other end of the network: raise model.initial_std (null suits "
                "most), take model.init=xavier, a normalisation, fewer layers, or another activation"
            )
        ),
        "exploding": (
            translate(
                "the first steps will diverge or crawl: lower model.initial_std (null suits most), "
                "take model.init=depth_scaled, a normalisation, or fewer layers"
            )
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
