"""The section on calibration: how often the model is right when it says 90 per cent.  Pure."""

from collections.abc import Sequence

from tunelab.charts.bar import Bars, bar_chart
from tunelab.charts.line import line_chart
from tunelab.charts.series import Series
from tunelab.effects.calibration import Bin, brier, calibration_error, reliability
from tunelab.report.blocks import Block, Chart, Grid, Section, Verdicts, Words
from tunelab.report.run_facts import Row, RunFacts
from tunelab.report.words import percent

FINE = 0.05  # an expected calibration error up to which confidences can be taken at their word


def calibration(run: RunFacts) -> list[Section]:
    """The section; none where no probabilities were kept."""
    rows = [row for row in run.predictions if isinstance(row.get("probabilities"), dict) and row["probabilities"]]
    if not rows:
        return []
    several = any(isinstance(row.get("label"), list) for row in rows)
    confidences, hits = decisions(rows) if several else chosen(rows)
    bins = reliability(confidences, hits)
    error = calibration_error(bins)
    blocks: list[Block] = [Verdicts([told(bins, error)]), *drawings(bins, several=several)]
    blocks.append(table(bins))
    if not several:
        names = list(rows[0]["probabilities"])
        known = [row for row in rows if row.get("label") in names and set(row["probabilities"]) == set(names)]
        if known:
            score = brier(
                [[row["probabilities"][n] for n in names] for row in known],
                [names.index(row["label"]) for row in known],
            )
            blocks.append(
                Words(f"Brier score {score:.4g} over {len(known):,} rows (0 is perfect, lower is better).", "soft")
            )
    what = "each decision for or against a label" if several else "the predicted label"
    return [
        Section(
            "Calibration", blocks, f"Over the test split, the probability of {what} against how often it was right."
        )
    ]


def chosen(rows: Sequence[Row]) -> tuple[list[float], list[bool]]:
    """Probability of each predicted label, and whether it was right."""
    confidences = [float(row["probabilities"].get(row.get("prediction"), 0.0)) for row in rows]
    return confidences, [row.get("prediction") == row.get("label") for row in rows]


def decisions(rows: Sequence[Row]) -> tuple[list[float], list[bool]]:
    """With several labels a row: the probability of each yes or no, and whether it was right."""
    confidences, hits = list[float](), list[bool]()
    for row in rows:
        wanted, said = set(row.get("label") or ()), set(row.get("prediction") or ())
        for name, probability in row["probabilities"].items():
            confidences.append(float(probability) if name in said else 1 - float(probability))
            hits.append((name in said) == (name in wanted))
    return confidences, hits


def told(bins: Sequence[Bin], error: float) -> Words:
    """The verdict in a sentence."""
    rows = sum(one.rows for one in bins)
    confidence = sum(one.rows * one.confidence for one in bins) / rows
    accuracy = sum(one.rows * one.accuracy for one in bins) / rows
    figures = (
        f"mean confidence {percent(confidence)}, right {percent(accuracy)}; expected calibration error {error:.3f}"
    )
    if error <= FINE:
        return Words(f"Confidences can be taken at their word: {figures}.", "good")
    way = "over-confident" if confidence > accuracy else "under-confident"
    return Words(f"The model is {way}: {figures}. One temperature, fitted on validation, usually mends that.", "warn")


def drawings(bins: Sequence[Bin], *, several: bool) -> list[Block]:
    """The reliability diagram, and how many rows stand behind each of its points."""
    names = [f"{one.rows:,} rows" for one in bins]
    series = [
        Series("measured", [one.confidence for one in bins], [one.accuracy for one in bins], names=names),
        Series("perfect", [0.0, 1.0], [0.0, 1.0]),
    ]
    title = "Confidence and accuracy"
    svg = line_chart(series, title=title, x_label="confidence", y_label="share that was right")
    counts = bar_chart(
        [f"{one.low:.2f} to {one.high:.2f}" for one in bins],
        [Bars("", [float(one.rows) for one in bins])],
        title="How sure the model is",
        value_label="decisions" if several else "rows",
        level=True,
    )
    below = "Below the diagonal: surer than it should be."
    return [Chart("reliability", svg, below, title), Chart("confidence", counts, "", "How sure the model is")]


def table(bins: Sequence[Bin]) -> Grid:
    """The bins as rows."""
    rows = [[one.low, one.high, one.rows, one.confidence, one.accuracy, one.accuracy - one.confidence] for one in bins]
    return Grid("calibration", ["above", "up to", "rows", "confidence", "accuracy", "gap"], rows)
