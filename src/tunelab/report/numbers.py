"""The section on predicted numbers: said against right, and the residuals.  Pure."""

from collections.abc import Sequence
from statistics import fmean, stdev

from tunelab.charts.bar import Bars, bar_chart
from tunelab.charts.numbers import human
from tunelab.charts.scatter import scatter
from tunelab.charts.series import Series
from tunelab.report.blocks import Block, Chart, Section, Verdicts, Words
from tunelab.report.run_facts import Row, RunFacts

MOST = 1000  # points of a drawing
BARS = 15


def numbers(run: RunFacts) -> list[Section]:
    """The section; none where no numbers were predicted."""
    targets = pairs_of(run.predictions)
    if not targets:
        return []
    blocks: list[Block] = []
    for name, pairs in targets.items():
        lines = verdicts(name, pairs)
        blocks += [Verdicts(lines)] if lines else []
        title = f"Said against right{f': {name}' * bool(name)}"
        step = -(-len(pairs) // MOST)
        kept = pairs[::step]
        ends = [min(right for right, _ in pairs), max(right for right, _ in pairs)]
        rows, perfect = Series("rows", *zip(*kept, strict=True)), Series("perfect", ends, ends)
        svg = scatter([rows], title=title, x_label="right", y_label="said", lines=[perfect])
        words = f"Every {step}th of {len(pairs):,} rows." if step > 1 else ""
        blocks.append(Chart(f"said_and_right{name and '_'}{slug(name)}", svg, words, title))
        blocks.append(histogram(name, [said - right for right, said in pairs]))
    return [Section("Predicted numbers", blocks, "Over the test split, in the units of the data.")]


def pairs_of(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Right and predicted value of each row, by target; a single target has no name."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        right, said = row.get("target"), row.get("prediction")
        if isinstance(right, int | float) and isinstance(said, int | float):
            found.setdefault("", []).append((float(right), float(said)))
        elif isinstance(right, dict) and isinstance(said, dict):
            for name in right:
                if isinstance(right[name], int | float) and isinstance(said.get(name), int | float):
                    found.setdefault(name, []).append((float(right[name]), float(said[name])))
    return found


def verdicts(name: str, pairs: Sequence[tuple[float, float]]) -> list[Words]:
    """Whether the predictions are shifted or squeezed."""
    if len(pairs) < 3:
        return []
    rights, saids = [right for right, _ in pairs], [said for _, said in pairs]
    of = f" of {name}" if name else ""
    lines = []
    shift, error = fmean(saids) - fmean(rights), stdev(said - right for right, said in pairs)
    if error and abs(shift) > 3 * error / len(pairs) ** 0.5 and abs(shift) > 0.1 * error:
        way = "above" if shift > 0 else "below"
        lines.append(Words(f"Predictions{of} lie {human(abs(shift))} {way} the truth on average.", "warn"))
    if stdev(rights) and stdev(saids) < 0.5 * stdev(rights):
        share = stdev(saids) / stdev(rights)
        lines.append(
            Words(
                f"Predictions{of} spread only {share:.2f} times as far as the truth: it plays safe.",
                "warn",
            )
        )
    return lines


def histogram(name: str, errors: Sequence[float]) -> Chart:
    """How many rows err by how much."""
    low, high = min(errors), max(errors)
    wide = (high - low) / BARS or 1.0
    counts = [0.0] * BARS
    for error in errors:
        counts[min(BARS - 1, int((error - low) / wide))] += 1
    labels = [f"{human(low + wide * at, 2)} to {human(low + wide * (at + 1), 2)}" for at in range(BARS)]
    title = f"Errors{f': {name}' * bool(name)} (said minus right)"
    svg = bar_chart(labels, [Bars("", counts)], title=title, value_label="rows", level=True)
    return Chart(f"errors{name and '_'}{slug(name)}", svg, "", title)


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)[:60]
