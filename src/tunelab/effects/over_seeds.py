"""What a setting does to the result, from trials that differ in it, in their seed and in nuisance settings.  Pure.

A trial is a line of `trials.jsonl`.  At each value of the setting the nuisance settings (everything else that varies,
but the seed) stand where the mean over the seeds is best: so a value is judged by what it can do, not by how well it
goes with one rate that was fixed beforehand (isolation, as in the Deep Learning Tuning Playbook, Godbole et al. 2023).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

SEED = "seed"


@dataclass(frozen=True)
class Arm:
    """One value of a setting.

    Attributes:
        value: Of the setting.
        scores: One for each seed.
        beside: Where the nuisance settings stand.
        lost: Trials at this value that diverged or failed, whatever the nuisance settings.
        border: Nuisance settings that stand at the lowest or highest number tried: a better one may lie outside.
    """

    value: Any
    scores: tuple[float, ...]
    beside: Mapping[str, Any]
    lost: int = 0
    border: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Over the seeds; nan where no seed came through."""
        return fmean(self.scores) if self.scores else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; nan of fewer than two."""
        return stdev(self.scores) if len(self.scores) > 1 else math.nan


def arms(trials: Iterable[Mapping[str, Any]], of: str, by: str | None, *, lower: bool) -> dict[Any, list[Arm]]:
    """The values of a setting, in order, for each value of `by`; under None where there is no `by`.

    Args:
        trials: Lines of `trials.jsonl`.
        of: The setting.
        by: Another setting, each value of which is looked at by itself.
        lower: Whether a lower score is better.
    """
    groups: dict[tuple[Any, Any], dict[tuple[tuple[str, Any], ...], list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    lost: dict[tuple[Any, Any], int] = defaultdict(int)
    for trial in trials:
        params = dict(trial["params"])
        if of not in params:
            continue
        params.pop(SEED, None)
        key = (params.pop(by, None) if by else None, params.pop(of))
        found = groups[key]
        score = trial.get("value")
        if trial["state"] == "complete" and score is not None and math.isfinite(score):
            found[tuple(sorted(params.items()))].append(float(score))
        elif trial["state"] == "failed":
            lost[key] += 1
    out: dict[Any, list[Arm]] = defaultdict(list)
    for (line, value), beside in groups.items():
        out[line].append(best_arm(value, beside, lost[line, value], lower=lower))
    return {line: in_order(found) for line, found in out.items()}


def best_arm(
    value: Any, beside: Mapping[tuple[tuple[str, Any], ...], Sequence[float]], lost: int, *, lower: bool
) -> Arm:
    """The best setting of the nuisances: among those with the most seeds, the one with the best mean."""
    if not beside:
        return Arm(value, (), {}, lost)
    most = max(map(len, beside.values()))
    whole = {key: scores for key, scores in beside.items() if len(scores) == most}
    chosen = (min if lower else max)(whole, key=lambda key: fmean(whole[key]))
    return Arm(value, tuple(whole[chosen]), dict(chosen), lost, at_border(dict(chosen), map(dict, whole)))


def at_border(chosen: Mapping[str, Any], tried: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The settings of `chosen` that stand at an end of the numbers tried."""
    values: dict[str, set[Any]] = defaultdict(set)
    for one in tried:
        for name, value in one.items():
            values[name].add(value)
    numbers = {name: found for name, found in values.items() if len(found) > 1 and all(map(is_number, found))}
    return tuple(name for name, found in numbers.items() if chosen.get(name) in (min(found), max(found)))


def in_order(found: Sequence[Arm]) -> list[Arm]:
    """By value where all are numbers, else as they came."""
    if all(is_number(arm.value) for arm in found):
        return sorted(found, key=lambda arm: float(arm.value))
    return list(found)


def is_number(value: Any) -> bool:
    """Whether a value has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)
