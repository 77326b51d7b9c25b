"""The effect of a setting as a drawing: the mean over seeds, their spread, and every single seed.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunelab.charts.bar import Bars, bar_chart
from tunelab.charts.line import line_chart
from tunelab.charts.series import Series
from tunelab.charts.ticks import Kind
from tunelab.effects.finding import told
from tunelab.effects.over_seeds import Arm, is_number

DOUBLINGS = 8  # from this ratio between the ends on, an axis goes by factors


def drawing(of: str, score: str, found: Mapping[Any, Sequence[Arm]], by: str | None) -> str:
    """One SVG: lines over a setting that is a number, bars for any other."""
    title = f"{score} by {of}" + (f" and {by}" if by else "")
    every = [arm for arms in found.values() for arm in arms]
    if every and all(is_number(arm.value) for arm in every):
        return lines(title, of, score, found, by)
    groups = list(dict.fromkeys(told(arm.value) for arm in every))
    bars = []
    for line, arms in found.items():
        known = {told(arm.value): arm for arm in arms}
        each = [known.get(group, Arm(group, (), {})) for group in groups]
        low, high = band(each)
        bars.append(Bars(name_of(line, by, score), [arm.mean for arm in each], low, high))
    return bar_chart(groups, bars, title=title, value_label=score)


def lines(title: str, of: str, score: str, found: Mapping[Any, Sequence[Arm]], by: str | None) -> str:
    """Lines over the values of a number."""
    series = []
    for line, arms in found.items():
        known = [arm for arm in arms if arm.scores]
        low, high = band(known)
        points = [(float(arm.value), score) for arm in known for score in arm.scores]
        xs, ys = [float(arm.value) for arm in known], [arm.mean for arm in known]
        series.append(Series(name_of(line, by, score), xs, ys, low, high, points))
    places = [x for one in series for x in one.xs]
    factors = bool(places) and min(places) > 0 and max(places) / min(places) >= DOUBLINGS
    kind: Kind = "log" if factors else "linear"
    return line_chart(series, title=title, x_label=of, y_label=score, x_scale=kind)


def band(arms: Sequence[Arm]) -> tuple[list[float], list[float]]:
    """Mean minus and plus the spread over seeds; the mean itself where there is one seed."""
    spreads = [arm.spread if len(arm.scores) > 1 else 0.0 for arm in arms]
    ends = [(arm.mean - spread, arm.mean + spread) for arm, spread in zip(arms, spreads, strict=True)]
    return [low for low, _ in ends], [high for _, high in ends]


def name_of(line: Any, by: str | None, score: str) -> str:
    """What the legend calls a line."""
    return score if by is None else f"{by}={told(line)}"
