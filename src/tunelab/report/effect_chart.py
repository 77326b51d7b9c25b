"""The effect of a setting as an SVG chart: mean over seeds, their spread, and every single seed.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunelab.analysis.setting_effect import ValueScores, format_setting_value, is_number
from tunelab.report.charts.axes import ScaleKind, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart

LOG_AXIS_RATIO = 8  # from this ratio between the ends on, an axis goes by factors


def effect_chart(of: str, score: str, arms_by_line: Mapping[Any, Sequence[ValueScores]], by: str | None) -> str:
    """One SVG: lines over a numeric setting, bars for any other."""
    title = f"{score} by {of}" + (f" and {by}" if by else "")
    every = [arm for arms in arms_by_line.values() for arm in arms]
    if every and all(is_number(arm.value) for arm in every):
        return effect_line_chart(title, of, score, arms_by_line, by)
    groups = list(dict.fromkeys(format_setting_value(arm.value) for arm in every))
    bars = []
    for line, arms in arms_by_line.items():
        known = {format_setting_value(arm.value): arm for arm in arms}
        each = [known.get(group, ValueScores(group, (), {})) for group in groups]
        low, high = spread_band(each)
        bars.append(Bars(series_name(line, by, score), [arm.mean for arm in each], low, high))
    return bar_chart(groups, bars, title=title, value_label=score)


def effect_line_chart(
    title: str, of: str, score: str, arms_by_line: Mapping[Any, Sequence[ValueScores]], by: str | None
) -> str:
    """One SVG with lines over a numeric setting."""
    series = []
    for line, arms in arms_by_line.items():
        known = [arm for arm in arms if arm.scores]
        low, high = spread_band(known)
        points = [(float(arm.value), score) for arm in known for score in arm.scores]
        xs, ys = [float(arm.value) for arm in known], [arm.mean for arm in known]
        series.append(Series(series_name(line, by, score), xs, ys, low, high, points))
    places = [x for one in series for x in one.xs]
    factors = bool(places) and min(places) > 0 and max(places) / min(places) >= LOG_AXIS_RATIO
    kind: ScaleKind = "log" if factors else "linear"
    return line_chart(series, title=title, x_label=of, y_label=score, x_scale=kind)


def spread_band(arms: Sequence[ValueScores]) -> tuple[list[float], list[float]]:
    """Mean minus and plus the standard deviation over seeds; the mean itself for one seed."""
    spreads = [arm.spread if len(arm.scores) > 1 else 0.0 for arm in arms]
    ends = [(arm.mean - spread, arm.mean + spread) for arm, spread in zip(arms, spreads, strict=True)]
    return [low for low, _ in ends], [high for _, high in ends]


def series_name(line: Any, by: str | None, score: str) -> str:
    """The legend entry of a line."""
    return score if by is None else f"{by}={format_setting_value(line)}"
