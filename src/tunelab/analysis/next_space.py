"""The next search space: moved where the best lies at a boundary, narrowed elsewhere, kept clear of failures.  Pure.

After the checks of the Deep Learning Tuning Playbook (Godbole et al. 2023), "Identifying bad search space
boundaries": a best value near a border says that a better one may lie outside.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log2, log10
from statistics import median

from tunelab.analysis.configurations import Configuration, Setting, Trial, format_value, is_number
from tunelab.analysis.importance import ValueRange, is_clearly_worse, isolate_setting
from tunelab.language.translation import messages, translate

NEAR_BOUNDARY = 0.15  # of the range, from its border
OUTER_QUARTER = 0.25  # of the range, from its border
TOP_SHARE = 0.1  # of the configurations, by which a border is assessed beside the best one
CLOSE_TO_FAILURE = 0.3  # decades, or share of a range without a logarithm, that count as next to the best
FAILURE_KINDS = ("diverged", "memory")
ACTIONS = messages("widen", "narrow", "keep", "fix", "bound")  # what is done to a setting


@dataclass(frozen=True)
class BoundaryHit:
    """The best configuration at a boundary of the search space.

    Attributes:
        setting: Which one.
        side: `low` or `high`.
        value: What it is at the best configuration.
    """

    setting: Setting
    side: str
    value: float


@dataclass(frozen=True)
class FailureLimit:
    """A value of a setting beyond which every run fails, close to the best's.

    Attributes:
        setting: Which one separates them best.
        side: Where they break: above or below the value.
        limit: No run survived beyond it.
        value: What the best configuration has.
        failures: How many runs broke beyond it.
    """

    setting: Setting
    side: str
    limit: float
    value: float
    failures: int


def find_boundary_hits(settings: Sequence[Setting], configurations: Sequence[Configuration]) -> list[BoundaryHit]:
    """Boundaries of the search space at which the best configuration stands.

    Among single values the border is the first or the last.  In a range the best and the middle of the best tenth of
    the trials crowd there: one lucky trial at a border does not show where it is better.
    """
    ranked = sorted(configurations, key=lambda point: point.cost)
    if len(ranked) < 4:
        return []
    out = []
    for setting in settings:
        held = [p for p in ranked if is_number(p.params.get(setting.name))]
        if not setting.numeric or not held or held[0] is not ranked[0] or setting.high <= setting.low:
            continue
        value = float(held[0].params[setting.name])
        if not setting.is_range:
            side = "low" if value <= setting.low else "high" if value >= setting.high else ""
        else:
            here = setting.to_unit(value)
            top = median(
                setting.to_unit(float(p.params[setting.name])) for p in held[: max(3, round(len(held) * TOP_SHARE))]
            )
            side = "low" if crowds_boundary(here, top) else "high" if crowds_boundary(1 - here, 1 - top) else ""
        if side:
            out.append(BoundaryHit(setting, side, value))
    return out


def crowds_boundary(best: float, top: float) -> bool:
    """Whether the best and the median of the best tenth both stand near the boundary.

    Either one may be within 15 % of the range with the other in its outer quarter: of few trials none lies further out.
    """
    return min(best, top) <= NEAR_BOUNDARY and max(best, top) <= OUTER_QUARTER


def find_failure_limits(settings: Sequence[Setting], trials: Sequence[Trial], *, lower: bool) -> list[FailureLimit]:
    """Settings beyond a value of which every run failed, that value being close to the best's.

    Two runs or more must lie beyond: a single broken one may be bad luck.
    """
    whole = [trial for trial in trials if trial.done]
    broken = [trial for trial in trials if trial.state == "failed" and trial.kind in FAILURE_KINDS]
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
            gap = abs(setting.to_unit(limit) - setting.to_unit(here))
            if (gap * decades_spanned(setting) if setting.log else gap) <= CLOSE_TO_FAILURE:
                out.append(FailureLimit(setting, side, limit, here, len(beyond)))
    return out


def decades_spanned(setting: Setting) -> float:
    """The powers of ten that a range spans."""
    return log10(setting.high / setting.low)


MIN_KEPT_RANGE = 0.35  # of a range that stays when it is narrowed
MIN_CONFIGURATIONS = 12  # configurations below which nothing is narrowed
NEGLIGIBLE_IMPORTANCE = 0.02  # importance below which a number may be fixed
MIN_TREND = 4  # values from which on a rise from end to end is no chance (1 in 12)
ROUNDING = 1e-9  # that a whole number may be off by
TRUSTED_SHARE = 0.3  # share that a surface must explain before a setting is fixed on its word
LegalRanges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class SettingChange:
    """The change of one setting in the next search space.

    Attributes:
        setting: As it was.
        new_setting: As it should be; None fixes it.
        value: What it is at the best configuration.
        reason: In a sentence.
        action: `widen`, `narrow`, `keep`, `fix` or `bound` (at a border of what is legal).
    """

    setting: Setting
    new_setting: Setting | None
    value: object
    reason: str
    action: str


def suggest_next_space(
    settings: Sequence[Setting],
    configurations: Sequence[Configuration],
    at_edges: Sequence[BoundaryHit],
    at_cliffs: Sequence[FailureLimit],
    *,
    weight: Mapping[str, float],
    explained: float,
    legal: LegalRanges,
    noise: float = math.nan,
) -> list[SettingChange]:
    """A change for each setting.

    A range is narrowed by what is worse beyond noise, and by nothing else; what was tried and is worse is not proposed
    again; settings that were searched by powers of two go on by powers of two.

    Args:
        settings: What varied, without the seed.
        configurations: Configurations with their costs.
        at_edges: Borders that the best stands at.
        at_cliffs: Where runs break next to it.
        weight: Importance of each setting, of 1; empty where none is known.
        explained: How far the surface that it comes from is to be trusted.
        legal: Smallest and largest legal value by setting.
        noise: Standard deviation over seeds; nan where it is not known.
    """
    ranked = sorted(configurations, key=lambda point: point.cost)
    best, sides = ranked[0], {edge.setting.name: edge.side for edge in at_edges}
    walls = {(cliff.setting.name, cliff.side) for cliff in at_cliffs}
    steps = []
    # while a border moves, what matters beyond it is not known
    may_fix = explained >= TRUSTED_SHARE and not at_edges and len(settings) > 1 and len(ranked) >= MIN_CONFIGURATIONS
    for setting in settings:
        name, value = setting.name, best.params.get(setting.name)
        side = sides.get(name, "")
        if side and (name, "above" if side == "high" else "below") not in walls:
            steps.append(widen_range(setting, side, float(str(value)), ranked, noise, legal.get(name)))
        elif (
            may_fix
            and setting.numeric
            and weight.get(name, 1.0) < NEGLIGIBLE_IMPORTANCE
            and alike(setting, ranked, noise)
        ):
            why = translate(
                "its importance is {weight:.2g} %; trials are better spent on others", weight=100 * weight[name]
            )
            steps.append(SettingChange(setting, None, value, why, "fix"))
        elif len(ranked) >= MIN_CONFIGURATIONS and setting.numeric and setting.is_range and is_number(value):
            wall = [cliff for cliff in at_cliffs if cliff.setting.name == name]
            steps.append(narrow_range(setting, float(str(value)), ranked, noise, wall))
        elif setting.numeric and not side and is_number(value) and value in setting.values[1:-1]:
            steps.append(refine_values(setting, value, ranked, noise))
        else:
            steps.append(SettingChange(setting, setting, value, reason_to_keep(setting, ranked, noise), "keep"))
    return steps


def reason_to_keep(setting: Setting, configurations: Sequence[Configuration], noise: float) -> str:
    """Why a setting keeps its values: none is worse, or too little is known to leave out one that is."""
    stretches = isolate_setting(setting, configurations)
    best = min(stretches, key=lambda one: one.best)
    worse = [one.label for one in stretches if is_clearly_worse(one, best, noise)]
    if not worse:
        return translate("no value is worse beyond noise")
    if setting.is_range:
        return translate("fewer than {least} configurations are too few to narrow a range", least=MIN_CONFIGURATIONS)
    return translate(
        "worse beyond noise here: {values}; leave out what stays so with new seeds",
        values=translate(", ").join(worse[:4]) + (" ..." if len(worse) > 4 else ""),
    )


def widen_range(
    setting: Setting,
    side: str,
    value: float,
    configurations: Sequence[Configuration],
    noise: float,
    legal: tuple[float, float] | None,
) -> SettingChange:
    """The range moved beyond the border: the best a quarter from its other end, or what is not worse beyond noise."""
    good, trend = good_stretches(setting, configurations, noise)
    if not setting.is_range:
        return extend_values(setting, side, value, [one.place for one in good], legal, trend=trend)
    here = setting.to_unit(value)
    if side == "low":
        units = (here - 0.75, max(here + 0.25, min(1.0, setting.to_unit(good[-1].end))))
    else:
        units = (min(here - 0.25, max(0.0, setting.to_unit(good[0].start))), here + 0.75)
    low, high = (setting.from_unit(unit) for unit in units)
    least, most = legal or (-math.inf, math.inf)
    least = max(least, floor_of(setting))
    low, high = max(low, least), min(high, most)
    whole = round_range(setting, low, high)
    new = replace(setting, low=float(max(whole[0], least)), high=float(min(whole[1], most)))
    end = setting.low if side == "low" else setting.high
    reached = new.low >= setting.low if side == "low" else new.high <= setting.high
    if reached or new.high <= new.low:
        return SettingChange(
            setting,
            setting,
            value,
            translate("the best ({value}) is close to {end}", value=format_value(value), end=last_legal(end, side)),
            "bound",
        )
    why = translate(
        "the best ({value}) is close to the low end ({end}): a better one may lie beyond"
        if side == "low"
        else "the best ({value}) is close to the high end ({end}): a better one may lie beyond",
        value=format_value(value),
        end=format_value(end),
    )
    return SettingChange(setting, new, value, why, "widen")


def last_legal(end: float, side: str) -> str:
    """The last legal value of a setting, in words."""
    return (
        translate("{end}, the lowest legal value", end=format_value(end))
        if side == "low"
        else translate("{end}, the highest legal value", end=format_value(end))
    )


def is_legal_end(setting: Setting, side: str, legal: tuple[float, float] | None) -> bool:
    """Whether no legal value lies beyond an end of a setting's range."""
    least, most = legal or (-math.inf, math.inf)
    return setting.low <= max(least, floor_of(setting)) if side == "low" else setting.high >= most


def floor_of(setting: Setting) -> float:
    """The number below which a setting is hardly meant to go: 1 for whole numbers that start there, 0 for others."""
    if setting.low < 0:
        return -math.inf
    return 1.0 if setting.integer and setting.low >= 1 else 0.0


def good_stretches(
    setting: Setting, configurations: Sequence[Configuration], noise: float
) -> tuple[list[ValueRange], bool]:
    """The stretches or values of a setting that are not worse than its best beyond noise, and whether the best of each
    rises or falls from one end to the other, which four or more hardly do by chance.
    """
    stretches = isolate_setting(setting, [p for p in configurations if is_number(p.params.get(setting.name))])
    best = min(stretches, key=lambda one: one.best)
    steps = [b.best - a.best for a, b in pairwise(stretches)]
    trend = len(stretches) >= MIN_TREND and (all(step > 0 for step in steps) or all(step < 0 for step in steps))
    return [one for one in stretches if not is_clearly_worse(one, best, noise)], trend


def extend_values(
    setting: Setting, side: str, value: float, good: Sequence[float], legal: tuple[float, float] | None, *, trend: bool
) -> SettingChange:
    """The best value and two beyond it, at the distance of the last two, and what was tried and is not worse.

    Args:
        setting: A list of numbers.
        side: Where the best stands.
        value: The best.
        good: Values that are not worse beyond noise.
        legal: Smallest and largest legal value.
        trend: Whether scores get better from one end to the other.
    """
    known = [float(v) for v in setting.values]
    end, inner = (known[0], known[1]) if side == "low" else (known[-1], known[-2])
    which = translate("lowest" if side == "low" else "highest")
    if not trend and inner in good:
        why = translate(
            "the best ({value}) is the {which} value tried, but the next one is not worse beyond noise",
            value=format_value(value),
            which=which,
        )
        return SettingChange(setting, setting, value, why, "keep")
    factors = setting.log or by_powers_of_two(setting)
    beyond = [end * (end / inner) ** n if factors else end + (end - inner) * n for n in (1, 2)]
    least, most = legal or (-math.inf, math.inf)
    least = max(least, floor_of(setting))
    exact = by_powers_of_two(setting)
    kept = [round(v) if setting.integer else v if exact else round_bound(v) for v in beyond if least <= v <= most]
    kept = [v for v in dict.fromkeys(kept) if v not in known]
    if not kept:
        return SettingChange(
            setting,
            setting,
            value,
            translate("the best is {end}", end=last_legal(end, side)),
            "bound",
        )
    texts_by_value = dict(zip(setting.values, setting.override_texts, strict=True))
    stay = [v for v in setting.values if float(v) == value or (not trend and float(v) in good)]
    values = sorted([*stay, *kept])
    texts = tuple(texts_by_value.get(v, repr(v)) for v in values)
    new = replace(setting, low=float(values[0]), high=float(values[-1]), values=tuple(values), override_texts=texts)
    why = translate(
        "the best ({value}) is the {which} value tried: a better one may lie beyond",
        value=format_value(value),
        which=which,
    )
    return SettingChange(setting, new, value, why, "widen")


def refine_values(
    setting: Setting, value: object, configurations: Sequence[Configuration], noise: float
) -> SettingChange:
    """Values half-way between the best of a list and its neighbours, where both are worse beyond noise."""
    at = setting.values.index(value)
    ranges = {one.place: one for one in isolate_setting(setting, configurations)}
    best = ranges[float(str(value))]
    beside = [ranges.get(float(v)) for v in (setting.values[at - 1], setting.values[at + 1])]
    if not all(one is not None and is_clearly_worse(one, best, noise) for one in beside):
        return SettingChange(setting, setting, value, translate("its neighbours are not worse beyond noise"), "keep")
    left, middle, right = (float(v) for v in setting.values[at - 1 : at + 2])
    kept = [value_between(setting, a, b) for a, b in ((left, middle), (middle, right))]
    values = tuple(v for v in (kept[0], value, kept[1]) if v == value or (v is not None and v not in setting.values))
    if len(values) < 2:
        return SettingChange(
            setting, setting, value, translate("nothing lies between the best and its neighbours"), "keep"
        )
    texts = tuple(setting.override_texts[at] if v == value else repr(v) for v in values)
    ends = float(str(values[0])), float(str(values[-1]))
    new = replace(setting, low=ends[0], high=ends[1], values=values, override_texts=texts)
    return SettingChange(
        setting, new, value, translate("both neighbours of the best are worse: look closer around it"), "narrow"
    )


def value_between(setting: Setting, low: float, high: float) -> float | None:
    """The value half-way; None where whole numbers or powers of two leave no room."""
    if by_powers_of_two(setting):
        power = round((log2(low) + log2(high)) / 2)
        between = 2.0**power
        return (round(between) if setting.integer else between) if low < between < high else None
    between = math.sqrt(low * high) if setting.log else (low + high) / 2
    return round(between) if setting.integer else round_bound(between)


def alike(setting: Setting, configurations: Sequence[Configuration], noise: float) -> bool:
    """Whether no value of a setting is worse than its best beyond noise."""
    stretches = isolate_setting(setting, configurations)
    best = min(stretches, key=lambda one: one.best)
    return not any(is_clearly_worse(one, best, noise) for one in stretches)


def narrow_range(
    setting: Setting,
    value: float,
    configurations: Sequence[Configuration],
    noise: float,
    at_cliffs: Sequence[FailureLimit],
) -> SettingChange:
    """The range without the stretches at its ends that are worse beyond noise, or where every run broke."""
    stretches = isolate_setting(setting, [p for p in configurations if is_number(p.params.get(setting.name))])
    best = min(stretches, key=lambda one: one.best)
    worse = [is_clearly_worse(one, best, noise) for one in stretches]
    first, last = outermost_kept(stretches, worse, stretches.index(best))
    low = 0.0 if first == 0 else setting.to_unit(stretches[first].start)
    high = 1.0 if last == len(stretches) - 1 else setting.to_unit(stretches[last].end)
    reasons = []
    for cliff in at_cliffs:
        low = max(low, setting.to_unit(cliff.limit)) if cliff.side == "below" else low
        high = min(high, setting.to_unit(cliff.limit)) if cliff.side == "above" else high
        reasons.append(
            translate(
                "all {count} [run|runs] above {limit} broke", count=cliff.failures, limit=format_value(cliff.limit)
            )
            if cliff.side == "above"
            else translate(
                "all {count} [run|runs] below {limit} broke", count=cliff.failures, limit=format_value(cliff.limit)
            )
        )
    if high - low < MIN_KEPT_RANGE:
        middle = min(max((low + high) / 2, MIN_KEPT_RANGE / 2), 1 - MIN_KEPT_RANGE / 2)
        low, high = middle - MIN_KEPT_RANGE / 2, middle + MIN_KEPT_RANGE / 2
    low, high = round_range(setting, *(setting.from_unit(min(1.0, max(0.0, unit))) for unit in (low, high)))
    low, high = max(setting.low, min(low, value)), min(setting.high, max(high, value))
    left_out = [
        translate("{label} is worse beyond noise", label=one.label)
        if clearly
        else translate("{label} lies beyond that and did no better", label=one.label)
        for one, clearly in zip(stretches, worse, strict=True)
        if not low <= one.place <= high
    ]
    reasons = left_out + reasons
    if not reasons or (low, high) == (setting.low, setting.high) or not low < high:
        return SettingChange(setting, setting, value, translate("no end of its range is worse beyond noise"), "keep")
    return SettingChange(setting, replace(setting, low=low, high=high), value, ", ".join(reasons), "narrow")


def outermost_kept(stretches: Sequence[ValueRange], worse: Sequence[bool], best: int) -> tuple[int, int]:
    """The first and the last stretch that stay.

    Outwards from the best they end before one that is clearly worse, where none beyond it did better than that one.

    Args:
        stretches: From low to high values.
        worse: Whether each is worse than the best beyond noise.
        best: Where the best stands.
    """

    def end(outwards: Sequence[int]) -> int:
        for at, place in enumerate(outwards):
            if worse[place] and all(stretches[other].best >= stretches[place].best for other in outwards[at + 1 :]):
                return outwards[at - 1] if at else best
        return outwards[-1] if outwards else best

    return end(range(best - 1, -1, -1)), end(range(best + 1, len(stretches)))


def by_powers_of_two(setting: Setting) -> bool:
    """Whether a setting was searched by powers of two: a list of them, or a range on a log scale between two."""
    if setting.is_range:
        return setting.integer and setting.log and all(is_power_of_two(end) for end in (setting.low, setting.high))
    values = [float(v) for v in setting.values if is_number(v)]
    spread = len(values) == len(setting.values) > 1 and max(values) / max(min(values), 1e-300) > 2
    return spread and all(map(is_power_of_two, values))


def is_power_of_two(value: float) -> bool:
    """Whether a number is 2 to a whole power."""
    return value > 0 and math.frexp(value)[0] == 0.5


def round_range(setting: Setting, low: float, high: float) -> tuple[float, float]:
    """A range between round ends: powers of two, whole numbers or two significant digits, none inside the range."""
    if by_powers_of_two(setting):
        return 2.0 ** math.floor(log2(low) + ROUNDING), 2.0 ** math.ceil(log2(high) - ROUNDING)
    if setting.integer:
        return float(math.floor(low + ROUNDING)), float(math.ceil(high - ROUNDING))
    return round_bound(low), round_bound(high)


def round_bound(value: float) -> float:
    """A number with two significant digits: ends of ranges need no more."""
    return float(f"{value:.2g}")
