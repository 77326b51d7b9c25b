"""The effect of a setting as an SVG chart: mean over seeds, their spread, and every single trial.  Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunelab.analysis.setting_effect import ValueResult, format_setting_value, is_number
from tunelab.language.translation import translate
from tunelab.report.charts.axes import ScaleKind, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart

LOG_AXIS_RATIO = 8  # from this ratio between the ends on, an axis goes by factors


MIN_BAND_SEEDS = 3  # seeds from which on their spread is drawn; two are seen as points


def effect_chart(
    of: str,
    score: str,
    results_by_line: Mapping[Any, Sequence[ValueResult]],
    by: str | None,
    *,
    lower: bool,
    searched: Sequence[float] = (),
) -> str:
    """One SVG: lines over a numeric setting, bars for any other.

    Args:
        of: The setting.
        score: What it moves.
        results_by_line: As `scores_by_value` gives them.
        by: The setting that parts the lines.
        lower: Whether a lower score is better.
        searched: Ends of the range that was searched, where it was one.
    """
    title = translate("{score} by {of}", score=score, of=of)
    title = translate("{score} by {of} and {by}", score=score, of=of, by=by) if by else title
    every = [result for results in results_by_line.values() for result in results]
    if every and all(is_number(result.value) for result in every):
        return effect_line_chart(title, (of, score), results_by_line, by, lower=lower, searched=searched)
    groups = list(dict.fromkeys(format_setting_value(result.value) for result in every))
    bars = []
    for line, results in results_by_line.items():
        known = {format_setting_value(result.value): result for result in results}
        each = [known.get(group, ValueResult(group, (), {})) for group in groups]
        low, high = spread_band(each)
        points = [result.every_score for result in each]
        bars.append(Bars(series_name(line, by, score), [result.mean for result in each], low, high, points))
    return bar_chart(groups, bars, title=title, value_label=score)


def effect_line_chart(
    title: str,
    labels: tuple[str, str],
    results_by_line: Mapping[Any, Sequence[ValueResult]],
    by: str | None,
    *,
    lower: bool,
    searched: Sequence[float],
) -> str:
    """One SVG with lines over a numeric setting; `labels` are those of the axes."""
    of, score = labels
    every = [result for results in results_by_line.values() for result in results]
    scores = [one for result in every for one in result.every_score]
    best = (min(scores) if lower else max(scores)) if scores else None
    series = []
    for line, results in results_by_line.items():
        known = [result for result in results if result.scores]
        low, high = spread_band(known)
        points = [(float(result.value), one) for result in known for one in result.every_score]
        xs, ys = [float(result.value) for result in known], [result.mean for result in known]
        ringed = next((at for at, (_, one) in enumerate(points) if one == best), -1)
        missing = [float(result.value) for result in results if not result.scores]
        series.append(
            Series(
                series_name(line, by, score), xs, ys, low, high, points, best=ringed, missing=missing,
                missing_on_top=lower,
            )
        )  # fmt: skip
        best = None if ringed >= 0 else best
    places = [float(result.value) for result in every] + list(searched)
    factors = bool(places) and min(places) > 0 and max(places) / min(places) >= LOG_AXIS_RATIO
    kind: ScaleKind = "log" if factors else "linear"
    return line_chart(series, title=title, x_label=of, y_label=score, x_scale=kind, x_range=searched)


def spread_band(results: Sequence[ValueResult]) -> tuple[list[float], list[float]]:
    """Mean minus and plus the standard deviation over seeds; nan where they are too few."""
    spreads = [result.spread if len(result.scores) >= MIN_BAND_SEEDS else math.nan for result in results]
    ends = [(result.mean - spread, result.mean + spread) for result, spread in zip(results, spreads, strict=True)]
    return [low for low, _ in ends], [high for _, high in ends]


def series_name(line: Any, by: str | None, score: str) -> str:
    """The legend entry of a line."""
    return score if by is None else f"{by}={format_setting_value(line)}"
