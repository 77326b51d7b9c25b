"""Where to search next: the space moved where the best stands at a border, narrowed where it does not.  Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles

from tunelab.effects.edges import Cliff, Edge
from tunelab.effects.points import Point
from tunelab.effects.setting import Setting, is_number, told

GOOD = 0.25  # share of the configurations whose values a narrowed range must hold
LEAST = 0.35  # of a range that stays when it is narrowed
FEW = 12  # configurations below which nothing is narrowed
SMALL = 0.02  # importance below which a number may be fixed
TRUSTED = 0.3  # share that a surface must explain before a setting is fixed on its word
Legal = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Step:
    """What to do with a setting.

    Attributes:
        setting: As it was.
        new: As it should be; None fixes it.
        value: What it is at the best configuration.
        why: In a sentence.
        kind: `widen`, `narrow`, `keep`, `fix` or `bound` (at a border of what is legal).
    """

    setting: Setting
    new: Setting | None
    value: object
    why: str
    kind: str


def next_space(
    settings: Sequence[Setting],
    found: Sequence[Point],
    at_edges: Sequence[Edge],
    at_cliffs: Sequence[Cliff],
    *,
    weight: Mapping[str, float],
    explained: float,
    legal: Legal,
) -> list[Step]:
    """A step for each setting.

    Args:
        settings: What varied, without the seed.
        found: Configurations with their costs.
        at_edges: Borders that the best stands at.
        at_cliffs: Where runs break next to it.
        weight: Importance of each setting, of 1; empty where none is known.
        explained: How far the surface that it comes from is to be trusted.
        legal: Smallest and largest legal value by setting.
    """
    ranked = sorted(found, key=lambda point: point.cost)
    best, sides = ranked[0], {edge.setting.name: edge.side for edge in at_edges}
    walls = {(cliff.setting.name, cliff.side) for cliff in at_cliffs}
    good = ranked[: max(4, round(len(ranked) * GOOD))]
    steps = []
    # while a border moves, what matters beyond it is not known
    may_fix = explained >= TRUSTED and not at_edges and len(settings) > 1 and len(ranked) >= FEW
    for setting in settings:
        name, value = setting.name, best.params.get(setting.name)
        side = sides.get(name, "")
        if side and (name, "above" if side == "high" else "below") not in walls:
            steps.append(widened(setting, side, float(str(value)), legal.get(name)))
        elif may_fix and setting.numeric and weight.get(name, 1.0) < SMALL:
            why = f"its importance is {100 * weight[name]:.2g} %; trials are better spent on others"
            steps.append(Step(setting, None, value, why, "fix"))
        elif len(ranked) >= FEW and setting.numeric and setting.range and is_number(value):
            steps.append(narrowed(setting, float(str(value)), good))
        elif setting.numeric and not side and is_number(value) and value in setting.values[1:-1]:
            steps.append(finer(setting, value))
        else:
            steps.append(Step(setting, setting, value, "nothing speaks against its values", "keep"))
    return steps


def widened(setting: Setting, side: str, value: float, legal: tuple[float, float] | None) -> Step:
    """The range moved beyond the border, as wide as before, with the best value a quarter from its other end."""
    if not setting.range:
        return more_values(setting, side, value, legal)
    here = setting.unit(value)
    units = (here - 0.75, here + 0.25) if side == "low" else (here - 0.25, here + 0.75)
    low, high = (setting.at(unit) for unit in units)
    least, most = legal or (-math.inf, math.inf)
    if setting.low >= 0 and not setting.log:
        least = max(least, 0.0)  # what starts at or above 0 is hardly meant to go below
    low, high = max(low, least), min(high, most)
    whole = (math.floor(low), math.ceil(high)) if setting.integer else (rounded(low), rounded(high))
    new = replace(setting, low=float(max(whole[0], least)), high=float(min(whole[1], most)))
    end = setting.low if side == "low" else setting.high
    reached = new.low >= setting.low if side == "low" else new.high <= setting.high
    if reached or new.high <= new.low:
        return Step(setting, setting, value, f"the best is at {told(end)}, where what is legal ends", "bound")
    why = f"the best ({told(value)}) is close to the {side} end ({told(end)}): a better one may lie beyond"
    return Step(setting, new, value, why, "widen")


def more_values(setting: Setting, side: str, value: float, legal: tuple[float, float] | None) -> Step:
    """Two more values beyond the border of those that were listed, at the distance of the last two."""
    known = [float(v) for v in setting.values]
    end, inner = (known[0], known[1]) if side == "low" else (known[-1], known[-2])
    beyond = [end * (end / inner) ** n if setting.log else end + (end - inner) * n for n in (1, 2)]
    least, most = legal or (-math.inf, math.inf)
    least = max(least, 0.0) if min(known) >= 0 else least
    kept = [round(v) if setting.integer else rounded(v) for v in beyond if least <= v <= most]
    kept = [v for v in dict.fromkeys(kept) if v not in known]
    if not kept:
        return Step(setting, setting, value, f"the best is {told(end)}, where what is legal ends", "bound")
    values = sorted([*setting.values[:2], *kept] if side == "low" else [*setting.values[-2:], *kept])
    texts = tuple(repr(v) for v in values)
    new = replace(setting, low=float(values[0]), high=float(values[-1]), values=tuple(values), texts=texts)
    which = "lowest" if side == "low" else "highest"
    why = f"the best ({told(value)}) is the {which} value tried: a better one may lie beyond"
    return Step(setting, new, value, why, "widen")


def finer(setting: Setting, value: object) -> Step:
    """Values half-way to the neighbours of the best of those that were listed."""
    at = setting.values.index(value)
    left, best, right = (float(v) for v in setting.values[at - 1 : at + 2])
    between = [math.sqrt(a * b) if setting.log else (a + b) / 2 for a, b in ((left, best), (best, right))]
    kept = [round(v) if setting.integer else rounded(v) for v in between]
    values = tuple(v for v in (kept[0], value, kept[1]) if v == value or v not in setting.values)
    if len(values) < 2:
        return Step(setting, setting, value, "nothing lies between the best and its neighbours", "keep")
    texts = tuple(setting.texts[at] if v == value else repr(v) for v in values)
    ends = float(str(values[0])), float(str(values[-1]))
    new = replace(setting, low=ends[0], high=ends[1], values=values, texts=texts)
    return Step(setting, new, value, "the best lies between others: look closer around it", "narrow")


def narrowed(setting: Setting, value: float, good: Sequence[Point]) -> Step:
    """The range of the good configurations, with the best inside."""
    units = [setting.unit(float(p.params[setting.name])) for p in good if is_number(p.params.get(setting.name))]
    here = setting.unit(value)
    low, *_, high = quantiles([*units, here], n=10, method="inclusive") if len(units) > 1 else (0.0, 1.0)
    low, high = min(low, here) - 0.08, max(high, here) + 0.08
    if high - low < LEAST:
        low, high = (low + high - LEAST) / 2, (low + high + LEAST) / 2
    low, high = max(0.0, low), min(1.0, high)
    ends = setting.at(low), setting.at(high)
    whole = (math.floor(ends[0]), math.ceil(ends[1])) if setting.integer else (rounded(ends[0]), rounded(ends[1]))
    new = replace(setting, low=max(setting.low, float(whole[0])), high=min(setting.high, float(whole[1])))
    if high - low > 0.85 or not new.low < new.high:
        return Step(setting, setting, value, "good trials are spread over all of its range", "keep")
    return Step(setting, new, value, "the best quarter of the trials lies here", "narrow")


def rounded(value: float) -> float:
    """A number with two significant digits: ends of ranges need no more."""
    return float(f"{value:.2g}")
