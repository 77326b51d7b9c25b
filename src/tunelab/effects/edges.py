"""Whether the best configuration stands at a border of what was searched, or next to where runs break.  Pure.

After the checks of the Deep Learning Tuning Playbook (Godbole et al. 2023), "Identifying bad search space boundaries":
a best value near a border says that a better one may lie outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from statistics import median

from tunelab.effects.points import Point, Trial
from tunelab.effects.setting import Setting, is_number

NEAR = 0.15  # of the range, from its border
QUARTER = 0.25  # of the range, from its border
TOP = 0.1  # of the configurations, by which a border is judged beside the best one
CLOSE = 0.3  # decades, or share of a range without a logarithm, that count as next to the best
BROKEN = ("diverged", "memory")


@dataclass(frozen=True)
class Edge:
    """A best configuration at a border.

    Attributes:
        setting: Which one.
        side: `low` or `high`.
        value: What it is at the best configuration.
    """

    setting: Setting
    side: str
    value: float


@dataclass(frozen=True)
class Cliff:
    """Runs that break next to the best.

    Attributes:
        setting: Which one separates them best.
        side: Where they break: above or below the value.
        limit: No run survived beyond it.
        value: What the best configuration has.
        broken: How many runs broke beyond it.
    """

    setting: Setting
    side: str
    limit: float
    value: float
    broken: int


def edges(settings: Sequence[Setting], found: Sequence[Point]) -> list[Edge]:
    """Borders that the best configuration stands at.

    Among single values the border is the first or the last.  In a range the best and the middle of the best tenth of
    the trials crowd there: one lucky trial at a border does not tell where it is better.
    """
    ranked = sorted(found, key=lambda point: point.cost)
    if len(ranked) < 4:
        return []
    out = []
    for setting in settings:
        held = [p for p in ranked if is_number(p.params.get(setting.name))]
        if not setting.numeric or not held or held[0] is not ranked[0] or setting.high <= setting.low:
            continue
        value = float(held[0].params[setting.name])
        if not setting.range:
            side = "low" if value <= setting.low else "high" if value >= setting.high else ""
        else:
            here = setting.unit(value)
            top = median(setting.unit(float(p.params[setting.name])) for p in held[: max(3, round(len(held) * TOP))])
            side = "low" if crowds(here, top) else "high" if crowds(1 - here, 1 - top) else ""
        if side:
            out.append(Edge(setting, side, value))
    return out


def crowds(best: float, top: float) -> bool:
    """Whether the best and the middle of the best tenth crowd at the border that both are measured from.

    Either one may be within 15 % of the range with the other in its outer quarter: of few trials none lies further out.
    """
    return min(best, top) <= NEAR and max(best, top) <= QUARTER


def cliffs(settings: Sequence[Setting], trials: Sequence[Trial], *, lower: bool) -> list[Cliff]:
    """Settings beyond a value of which every run broke, that value being close to the best's.

    Two runs or more must lie beyond: a single broken one may be bad luck.
    """
    whole = [trial for trial in trials if trial.done]
    broken = [trial for trial in trials if trial.state == "failed" and trial.kind in BROKEN]
    if not whole or len(broken) < 2:
        return []
    best = min(whole, key=lambda trial: (trial.value or 0.0) * (1 if lower else -1))
    out = []
    for setting in settings:
        values = [float(t.params[setting.name]) for t in whole if is_number(t.params.get(setting.name))]
        fallen = [float(t.params[setting.name]) for t in broken if is_number(t.params.get(setting.name))]
        if not setting.numeric or not values or not is_number(best.params.get(setting.name)):
            continue
        here = float(best.params[setting.name])
        for side, limit in (("above", max(values)), ("below", min(values))):
            beyond = [value for value in fallen if (value > limit if side == "above" else value < limit)]
            if len(beyond) < 2:
                continue
            gap = abs(setting.unit(limit) - setting.unit(here))
            if (gap * decades(setting) if setting.log else gap) <= CLOSE:
                out.append(Cliff(setting, side, limit, here, len(beyond)))
    return out


def decades(setting: Setting) -> float:
    """How many powers of ten a range spans."""
    return log10(setting.high / setting.low)
