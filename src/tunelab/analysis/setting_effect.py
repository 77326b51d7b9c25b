"""The effect of one setting over seeds and nuisance settings: scores at each value, and a sentence.  Pure.

A trial is a line of `trials.jsonl`.  At each value of the setting the nuisance settings (everything else that
varies, but the seed) stand where the mean over the seeds is best: so a value is judged by what it can do, not by
how well it goes with one rate that was fixed beforehand (isolation, as in the Deep Learning Tuning Playbook,
Godbole et al. 2023). Two values count as different where Welch's t-test over the seeds says so at five per cent;
with few seeds that asks for a clear gap, and the sentence says how many there were.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from tunelab.language.translation import translate

SEED = "seed"


@dataclass(frozen=True)
class ValueResult:
    """The scores at one value of a setting, over seeds, the nuisance settings at their best.

    Attributes:
        value: Of the setting.
        scores: One for each seed.
        nuisance_values: Where the nuisance settings stand.
        failed_trials: Those at this value that diverged or failed, whatever the nuisance settings.
        nuisances_at_border: Those at the lowest or highest number tried: a better one may lie outside.
        every_score: Of all trials at this value, whatever the nuisance settings.
    """

    value: Any
    scores: tuple[float, ...]
    nuisance_values: Mapping[str, Any]
    failed_trials: int = 0
    nuisances_at_border: tuple[str, ...] = ()
    every_score: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """The mean over seeds; nan where every seed failed."""
        return fmean(self.scores) if self.scores else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; nan of fewer than two."""
        return stdev(self.scores) if len(self.scores) > 1 else math.nan


def scores_by_value(
    trials: Iterable[Mapping[str, Any]], of: str, by: str | None, *, lower: bool
) -> dict[Any, list[ValueResult]]:
    """The scores at each value of a setting, in order, for each value of `by`; under None without `by`.

    Args:
        trials: Lines of `trials.jsonl`.
        of: The setting.
        by: Another setting, each value of which is looked at by itself.
        lower: Whether a lower score is better.
    """
    groups: dict[tuple[Any, Any], dict[tuple[tuple[str, Any], ...], list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    failed: dict[tuple[Any, Any], int] = defaultdict(int)
    for trial in trials:
        params = dict(trial["params"])
        if of not in params:
            continue
        params.pop(SEED, None)
        key = (params.pop(by, None) if by else None, params.pop(of))
        scores = groups[key]
        score = trial.get("value")
        if trial["state"] == "complete" and score is not None and math.isfinite(score):
            scores[tuple(sorted(params.items()))].append(float(score))
        elif trial["state"] == "failed":
            failed[key] += 1
    out: dict[Any, list[ValueResult]] = defaultdict(list)
    for (line, value), scores_by_nuisances in groups.items():
        out[line].append(best_nuisance_scores(value, scores_by_nuisances, failed[line, value], lower=lower))
    return {line: sort_by_value(results) for line, results in out.items()}


def best_nuisance_scores(
    value: Any, scores_by_nuisances: Mapping[tuple[tuple[str, Any], ...], Sequence[float]], failed: int, *, lower: bool
) -> ValueResult:
    """The best setting of the nuisances: among those with the most seeds, the one with the best mean."""
    if not scores_by_nuisances:
        return ValueResult(value, (), {}, failed)
    most_seeds = max(map(len, scores_by_nuisances.values()))
    complete = {key: scores for key, scores in scores_by_nuisances.items() if len(scores) == most_seeds}
    chosen = (min if lower else max)(complete, key=lambda key: fmean(complete[key]))
    border = nuisances_at_border(dict(chosen), map(dict, complete))
    every = tuple(chain(*scores_by_nuisances.values()))
    return ValueResult(value, tuple(complete[chosen]), dict(chosen), failed, border, every)


def nuisances_at_border(chosen: Mapping[str, Any], tried: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The settings of `chosen` that stand at an end of the numbers tried."""
    values: dict[str, set[Any]] = defaultdict(set)
    for one in tried:
        for name, value in one.items():
            values[name].add(value)
    numbers = {
        name: tried_values
        for name, tried_values in values.items()
        if len(tried_values) > 1 and all(map(is_number, tried_values))
    }
    return tuple(
        name for name, tried_values in numbers.items() if chosen.get(name) in (min(tried_values), max(tried_values))
    )


def sort_by_value(results: Sequence[ValueResult]) -> list[ValueResult]:
    """Results in the order of their values if all are numbers, else as they came."""
    if all(is_number(result.value) for result in results):
        return sorted(results, key=lambda result: float(result.value))
    return list(results)


def is_number(value: Any) -> bool:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


SIGNIFICANCE = 0.05


def describe_effect(
    of: str, score: str, results_by_line: Mapping[Any, Sequence[ValueResult]], by: str | None, *, lower: bool
) -> str:
    """The effect of a setting in words, a sentence for each line of the chart."""
    if by is None:
        return describe_series(of, score, next(iter(results_by_line.values()), []), lower=lower)
    each = [
        translate(
            "With {by}={line}: {effect}", by=by, line=line, effect=describe_series(of, score, results, lower=lower)
        )
        for line, results in results_by_line.items()
    ]
    return " ".join([*each, *compare_series(score, results_by_line, by, lower=lower)])


def describe_series(of: str, score: str, results: Sequence[ValueResult], *, lower: bool) -> str:
    """The effect along one line of the chart, in words."""
    known = [result for result in results if result.scores]
    if not known:
        return translate("no trial came through, so nothing can be said of {of}.", of=of)
    broken = failed_runs_text(results)
    if len(known) == 1:
        result = known[0]
        return translate(
            "{score} is {result} at {of}={value}, the only value that came through.{broken}",
            score=score,
            result=format_mean(result),
            of=of,
            value=format_setting_value(result.value),
            broken=broken,
        )
    judged = [result for result in known if len(result.scores) > 1]
    if len(judged) < 2:
        best, worst = best_and_worst(known, lower=lower)
        return translate(
            "{score} runs from {best} at {of}={value} to {worst} at {other}, but with one seed "
            "at a value effect and noise cannot be told apart.{broken}",
            score=score,
            best=format_mean(best),
            of=of,
            value=format_setting_value(best.value),
            worst=format_mean(worst),
            other=format_setting_value(worst.value),
            broken=broken,
        )
    best, worst = best_and_worst(judged, lower=lower)
    few = [format_setting_value(result.value) for result in known if len(result.scores) == 1]
    broken += translate(" One seed came through at {names}, too few to judge.", names=", ".join(few)) if few else ""
    most = max(len(result.scores) for result in judged)
    least = min(len(result.scores) for result in judged)
    seeds = f"{least}" if least == most else translate("{low} to {high}", low=least, high=most)
    if not differ_significantly(best, worst):
        gap = abs(best.mean - worst.mean)
        return translate(
            "no effect of {of} on {score} beyond the seeds' noise: means run from {mean:.4g} to "
            "{high:.4g} (a gap of {gap:.2g}), the spread over {seeds} seeds is up to "
            "{spread:.2g}.{broken}",
            of=of,
            score=score,
            mean=best.mean,
            high=worst.mean,
            gap=gap,
            seeds=seeds,
            spread=largest_spread(judged),
            broken=broken,
        )
    as_good = [
        format_setting_value(result.value)
        for result in judged
        if result is not best and not differ_significantly(best, result)
    ]
    rest = (
        translate("; {names} cannot be told from it", names=", ".join(as_good))
        if as_good
        else translate("; every other value is worse beyond the noise")
    )
    text = translate(
        "{score} is best at {of}={best}, {high}{rest}; {worst} is the worst, {low}; {seeds} seeds each.",
        score=score,
        of=of,
        best=format_setting_value(best.value),
        high=f"{format_mean(best)}{format_nuisances(best)}",
        rest=rest,
        worst=format_setting_value(worst.value),
        low=f"{format_mean(worst)}{format_nuisances(worst)}",
        seeds=seeds,
    )
    return f"{text}{broken}{nuisance_border_text(of, judged)}"


def failed_runs_text(results: Sequence[ValueResult]) -> str:
    """A sentence on values at which runs failed, all of them or some; empty without any."""
    gone = [
        translate("{value} ({count} lost)", value=format_setting_value(result.value), count=result.failed_trials)
        for result in results
        if not result.scores
    ]
    some = [
        f"{format_setting_value(result.value)} ({result.failed_trials})"
        for result in results
        if result.scores and result.failed_trials
    ]
    return (translate(" None came through at {names}.", names=", ".join(gone)) if gone else "") + (
        translate(" Some runs were lost at {names}.", names=", ".join(some)) if some else ""
    )


def nuisance_border_text(of: str, known: Sequence[ValueResult]) -> str:
    """A sentence on nuisance settings whose best value is an end of those tried; empty without any."""
    close: dict[str, list[str]] = {}
    for result in known:
        for name in result.nuisances_at_border:
            close.setdefault(name, []).append(format_setting_value(result.value))
    return "".join(
        translate(
            " The best {name} was an end of those tried at {of}={names}; a wider range may change this.",
            name=name,
            of=of,
            names=", ".join(values),
        )
        for name, values in close.items()
    )


def compare_series(
    score: str, results_by_line: Mapping[Any, Sequence[ValueResult]], by: str, *, lower: bool
) -> list[str]:
    """A sentence on which of two lines is better at how many of their common values."""
    if len(results_by_line) != 2:
        return []
    (one, first), (other, second) = results_by_line.items()
    theirs = {format_setting_value(result.value): result for result in second if result.scores}
    pairs = [
        (result, theirs[format_setting_value(result.value)])
        for result in first
        if result.scores and format_setting_value(result.value) in theirs
    ]
    apart = [(a, b) for a, b in pairs if differ_significantly(a, b)]
    ahead = sum((a.mean < b.mean) == lower for a, b in apart)
    return [
        translate(
            "{by}={one} has the better {score} at {ahead} of {count} [value|values], {by}={other} at "
            "{behind}, beyond the noise.",
            by=by,
            one=one,
            score=score,
            ahead=ahead,
            count=len(pairs),
            other=other,
            behind=len(apart) - ahead,
        )
    ]


def best_and_worst(known: Sequence[ValueResult], *, lower: bool) -> tuple[ValueResult, ValueResult]:
    """The values with the best and the worst mean."""
    ordered = sorted(known, key=lambda result: result.mean, reverse=not lower)
    return ordered[0], ordered[-1]


def differ_significantly(one: ValueResult, other: ValueResult) -> bool:
    """Whether two values differ by Welch's t-test; one seed can never show it."""
    if min(len(one.scores), len(other.scores)) < 2:
        return False
    if one.spread == other.spread == 0:
        return one.mean != other.mean
    return bool(stats.ttest_ind(one.scores, other.scores, equal_var=False).pvalue < SIGNIFICANCE)


def largest_spread(known: Sequence[ValueResult]) -> float:
    """The largest standard deviation over seeds."""
    return max((result.spread for result in known if not math.isnan(result.spread)), default=math.nan)


def format_mean(result: ValueResult) -> str:
    """The mean at a value with its standard deviation, as text."""
    return f"{result.mean:.4g}" + ("" if math.isnan(result.spread) else f" ± {result.spread:.2g}")


def format_nuisances(result: ValueResult) -> str:
    """The nuisance settings at a value as text in brackets; empty without any."""
    return (
        translate(
            " (at {settings})",
            settings=", ".join(
                f"{name}={format_setting_value(value)}" for name, value in result.nuisance_values.items()
            ),
        )
        if result.nuisance_values
        else ""
    )


def format_setting_value(value: Any) -> str:
    """A value of a setting as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)
