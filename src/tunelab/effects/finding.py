"""One sentence on the effect of a setting, written from the numbers and from nothing else.  Pure.

Two values count as different where Welch's t-test over the seeds says so at five per cent; with few seeds that asks for
a clear gap, and the sentence says how many there were.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from tunelab.effects.over_seeds import Arm

LEVEL = 0.05


def finding(of: str, score: str, found: Mapping[Any, Sequence[Arm]], by: str | None, *, lower: bool) -> str:
    """What the trials say, as one sentence for each line of the drawing."""
    if by is None:
        return of_line(of, score, next(iter(found.values()), []), lower=lower)
    each = [f"With {by}={line}: {of_line(of, score, arms, lower=lower)}" for line, arms in found.items()]
    return " ".join([*each, *between(score, found, by, lower=lower)])


def of_line(of: str, score: str, arms: Sequence[Arm], *, lower: bool) -> str:
    """What one line says."""
    known = [arm for arm in arms if arm.scores]
    if not known:
        return f"no trial came through, so nothing can be said of {of}."
    broken = losses(arms)
    if len(known) == 1:
        arm = known[0]
        return f"{score} is {figure(arm)} at {of}={told(arm.value)}, the only value that came through.{broken}"
    judged = [arm for arm in known if len(arm.scores) > 1]
    if len(judged) < 2:
        best, worst = ends(known, lower=lower)
        return (
            f"{score} runs from {figure(best)} at {of}={told(best.value)} to {figure(worst)} at {told(worst.value)}, "
            f"but with one seed at a value effect and noise cannot be told apart.{broken}"
        )
    best, worst = ends(judged, lower=lower)
    few = [told(arm.value) for arm in known if len(arm.scores) == 1]
    broken += f" One seed came through at {', '.join(few)}, too few to judge." if few else ""
    most = max(len(arm.scores) for arm in judged)
    least = min(len(arm.scores) for arm in judged)
    seeds = f"{least}" if least == most else f"{least} to {most}"
    if not differs(best, worst):
        gap = abs(best.mean - worst.mean)
        return (
            f"no effect of {of} on {score} beyond the seeds' noise: means run from {best.mean:.4g} to {worst.mean:.4g} "
            f"(a gap of {gap:.2g}), the spread over {seeds} seeds is up to {noise(judged):.2g}.{broken}"
        )
    as_good = [told(arm.value) for arm in judged if arm is not best and not differs(best, arm)]
    rest = (
        f"; {', '.join(as_good)} cannot be told from it" if as_good else "; every other value is worse beyond the noise"
    )
    return (
        f"{score} is best at {of}={told(best.value)}, {figure(best)}{at(best)}{rest}; "
        f"{told(worst.value)} is the worst, {figure(worst)}{at(worst)}; "
        f"{seeds} seeds each.{broken}{outside(of, judged)}"
    )


def losses(arms: Sequence[Arm]) -> str:
    """Where runs diverged or failed: all of them, or some, so that what is left may flatter."""
    gone = [f"{told(arm.value)} ({arm.lost} lost)" for arm in arms if not arm.scores]
    some = [f"{told(arm.value)} ({arm.lost})" for arm in arms if arm.scores and arm.lost]
    return (f" None came through at {', '.join(gone)}." if gone else "") + (
        f" Some runs were lost at {', '.join(some)}." if some else ""
    )


def outside(of: str, known: Sequence[Arm]) -> str:
    """Where the nuisance settings may not have been given enough room for a fair comparison."""
    close: dict[str, list[str]] = {}
    for arm in known:
        for name in arm.border:
            close.setdefault(name, []).append(told(arm.value))
    return "".join(
        f" The best {name} was an end of those tried at {of}={', '.join(values)}; a wider range may change this."
        for name, values in close.items()
    )


def between(score: str, found: Mapping[Any, Sequence[Arm]], by: str, *, lower: bool) -> list[str]:
    """Which line is ahead at how many of the values that two lines share."""
    if len(found) != 2:
        return []
    (one, first), (other, second) = found.items()
    theirs = {told(arm.value): arm for arm in second if arm.scores}
    pairs = [(arm, theirs[told(arm.value)]) for arm in first if arm.scores and told(arm.value) in theirs]
    apart = [(a, b) for a, b in pairs if differs(a, b)]
    ahead = sum((a.mean < b.mean) == lower for a, b in apart)
    return [
        f"{by}={one} has the better {score} at {ahead} of {len(pairs)} values, {by}={other} at {len(apart) - ahead}, "
        "beyond the noise."
    ]


def ends(known: Sequence[Arm], *, lower: bool) -> tuple[Arm, Arm]:
    """The best arm and the worst."""
    ordered = sorted(known, key=lambda arm: arm.mean, reverse=not lower)
    return ordered[0], ordered[-1]


def differs(one: Arm, other: Arm) -> bool:
    """Whether two arms differ by Welch's t-test; one seed can never show it."""
    if min(len(one.scores), len(other.scores)) < 2:
        return False
    if one.spread == other.spread == 0:
        return one.mean != other.mean
    return bool(stats.ttest_ind(one.scores, other.scores, equal_var=False).pvalue < LEVEL)


def noise(known: Sequence[Arm]) -> float:
    """The widest spread over seeds."""
    return max((arm.spread for arm in known if not math.isnan(arm.spread)), default=math.nan)


def figure(arm: Arm) -> str:
    """A mean with its spread."""
    return f"{arm.mean:.4g}" + ("" if math.isnan(arm.spread) else f" ± {arm.spread:.2g}")


def at(arm: Arm) -> str:
    """Where the nuisance settings stand."""
    return f" (at {', '.join(f'{name}={told(value)}' for name, value in arm.beside.items())})" if arm.beside else ""


def told(value: Any) -> str:
    """A value as a reader writes it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
