"""A survey as one HTML page: tables, the curve of the rate, memory, signals along the depth."""

from tunelab.analysis.number_format import format_number
from tunelab.inspection import told
from tunelab.inspection.survey import Survey
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.chart_page import Figure, Heading, Paragraph, Section, Table, render_page
from tunelab.report.charts.lines import line_chart

MIB = 2**20


def survey_page(title: str, found: Survey) -> str:
    """The whole page."""
    sections: list[Section] = [
        Paragraph(f"At the first weights: {found.verdict.word}. " + sentences(told.health(found))),
        Heading("Model"),
        Table(("what", "value"), list(told.architecture(found).items())),
        Heading("Work"),
        *(Paragraph(f"{what[:1].upper()}{what[1:]}: {words}.") for what, words in told.work(found).items()),
        Heading("Learning rate"),
        Figure(rates(found), told.rates(found)),
        Heading("Memory"),
        Figure(memory(found), sentences(told.memory_verdict(found))),
        Table(("what", "size"), [(what, told.mebibytes(size)) for what, size, _ in told.memory(found)]),
        Paragraph("; ".join(f"{what}: {why}" for what, _, why in told.memory(found)) + "."),
        Heading("Signals and gradients"),
        Paragraph(
            "Root mean square of what leaves each layer, and of the loss's gradient there, at the first weights. "
            "A network learns best when neither changes its scale much from layer to layer (Glorot and Bengio, 2010)."
        ),
        *drawn_signals(found),
        Table(("part", "parameters", "trainable", "signal", "share added", "gradient"), told.layers(found)),
    ]
    return render_page(title, sections)


def sentences(lines: list[str]) -> str:
    """Lines as one paragraph."""
    return " ".join(f"{line[:1].upper()}{line[1:]}." for line in lines)


def rates(found: Survey) -> str:
    """The curve of the rate."""
    curve = found.curve
    marks = [ReferenceLine(curve.warmup, f"warm-up ends at {curve.warmup:,}")] if 0 < curve.warmup < found.steps else []
    series = Series("learning rate", curve.steps, curve.rates)
    return line_chart([series], title="Learning rate", x_label="optimizer step", y_label="learning rate", marks=marks)


def memory(found: Survey) -> str:
    """What takes how much."""
    lines = told.memory(found)
    sizes = [size / MIB for _, size, _ in lines] + [found.memory.peak / MIB]
    names = [what for what, _, _ in lines] + ["peak"]
    return bar_chart(names, [Bars("MiB", sizes)], title="Memory on one device", value_label="MiB", level=True)


def drawn_signals(found: Survey) -> list[Section]:
    """Signals up and gradients down, each along the depth; nothing where no layers were found."""
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
        Figure(
            line_chart(
                [Series(name, places, values, names=seen.names)],
                title=title,
                x_label="layer (0: embeddings)",
                y_label="root mean square",
                y_scale="log",
            ),
            words,
        )
        for title, name, values, words in pictures
    ]
