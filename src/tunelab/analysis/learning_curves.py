"""The diagnosis of a learning curve: over-fitted, still improving, settled, and its noise.  Pure.

After the questions of the Deep Learning Tuning Playbook (Godbole et al. 2023), "Examining the training curves".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Literal

from tunelab.language.translation import messages, translate

SHAPES = messages("unknown", "never better", "over-fitted", "worsened", "improving", "settled", "early")  # of a curve
VerdictTone = Literal["plain", "good", "warn", "bad"]
CurveUnit = Literal["step", "validation"]  # what the places of a curve count
MIN_VALIDATIONS = 3  # validations that make a curve
CLEAR_CHANGE = 2.0  # a change counts from this many times the noise on
SMALL_CHANGE = 0.02  # and from this share of all that was gained


@dataclass(frozen=True)
class CurveDiagnosis:
    """The diagnosis of one learning curve.

    Attributes:
        shape: `over-fitted`, `worsened`, `improving`, `settled`, `early` (best in the first tenth), `never better` or
            `unknown`.
        noise: Standard deviation of a validation around the trend; nan where too few.
        verdicts: Sentences, each with its tone.
    """

    shape: str
    noise: float
    verdicts: tuple[tuple[VerdictTone, str], ...]


def curve_noise(values: Sequence[float]) -> float:
    """Standard deviation of single values around a smooth trend, from second differences.

    The second difference of independent noise with variance s^2 has variance 6 s^2, and a straight trend adds nothing
    to it (Gasser, Sroka, Jennen-Steinmetz 1986); the median makes one jump harmless.  Nan of fewer than four values.
    """
    second = [after - 2 * now + before for (before, now), (_, after) in pairwise(list(pairwise(values)))]
    return median(map(abs, second)) / 0.6745 / math.sqrt(6) if len(second) > 1 else math.nan


def diagnose_curve(
    steps: Sequence[float],
    values: Sequence[float],
    train_steps: Sequence[float] = (),
    losses: Sequence[float] = (),
    *,
    lower: bool,
    name: str = "the score",
    unit: CurveUnit = "step",
) -> CurveDiagnosis:
    """The diagnosis of one curve.

    Args:
        steps: Optimizer steps done at each validation.
        values: The score there.
        train_steps: Steps at which the training loss is known.
        losses: The training loss there.
        lower: Whether the score is better when it is lower.
        name: What the score is called.
        unit: What `steps` counts.
    """
    known = [(step, value if lower else -value) for step, value in zip(steps, values, strict=True)]
    good = [(step, cost) for step, cost in known if math.isfinite(cost)]
    if len(good) < len(known):
        count = len(known) - len(good)
        return CurveDiagnosis(
            "unknown",
            math.nan,
            (
                (
                    "bad",
                    translate(
                        "{name} was not finite at {count} of {total} [validation|validations].",
                        name=name,
                        count=count,
                        total=len(known),
                    ),
                ),
            ),
        )
    if not good:
        text = translate(
            "The run was never validated, so its curve is not judged; data.split.validation=0.1 sets rows apart for it."
        )
        return CurveDiagnosis("unknown", math.nan, (("plain", text),))
    if len(good) < MIN_VALIDATIONS:
        text = translate(
            "{name} was taken at {count} [validation|validations]: too few to judge the curve",
            name=name,
            count=len(good),
        )
        return CurveDiagnosis(
            "unknown",
            math.nan,
            (("plain", translate("{words}; trainer.val_check_interval=0.25 gives more.", words=text)),),
        )
    costs = [cost for _, cost in good]
    place = min(range(len(costs)), key=costs.__getitem__)
    noise = curve_noise(costs)
    clear = max(CLEAR_CHANGE * (0.0 if math.isnan(noise) else noise), SMALL_CHANGE * (max(costs) - min(costs)))
    at, last = good[place][0], good[-1][0]
    best_at, end = place_words(unit, at), place_words(unit, last)
    verdicts: list[tuple[VerdictTone, str]] = []
    if place == 0:
        kind = "never better"
        verdicts.append(
            (
                "warn",
                translate(
                    "{name} was best at the first validation ({place}): it never got better after.",
                    name=name,
                    place=best_at,
                ),
            )
        )
    elif place < len(costs) - 1 and costs[-1] - costs[place] > clear:
        falling = is_falling(train_steps, losses, at)
        kind = "over-fitted" if falling else "worsened"
        why = (
            translate("while the training loss went on falling: it over-fits from there on")
            if falling
            else translate("afterwards")
        )
        verdicts.append(
            (
                "warn",
                translate(
                    "{name} was best at {place} of {last:g} and got worse by {loss:.3g} {why}.",
                    name=name,
                    place=best_at,
                    last=last,
                    loss=costs[-1] - costs[place],
                    why=why,
                ),
            )
        )
    elif late_gain(costs) > clear / 2 and place >= len(costs) - 2:
        kind = "improving"
        verdicts.append(
            (
                "warn",
                translate(
                    "{name} was still getting better when the run ended at {place}: more steps may pay.",
                    name=name,
                    place=end,
                ),
            )
        )
    else:
        kind = "settled"
        verdicts.append(
            (
                "good",
                translate(
                    "{name} has settled: best at {place} of {last:g}, little change since.",
                    name=name,
                    place=best_at,
                    last=last,
                ),
            )
        )
    if place > 0 and at <= 0.1 * last:
        verdicts.append(
            ("warn", translate("The best step is in the first tenth of the run: a lower rate would spoil less later."))
        )
        kind = "early"
    if not math.isnan(noise) and noise > 0.1 * (max(costs) - min(costs)) > 0:
        verdicts.append(
            (
                "warn",
                translate(
                    "{name} scatters by {noise:.2g} between validations: smaller differences mean nothing.",
                    name=name,
                    noise=noise,
                ),
            )
        )
    return CurveDiagnosis(kind, noise, tuple(verdicts))


def place_words(unit: CurveUnit, at: float) -> str:
    """A place on a curve: `step 30`, or `validation 3`."""
    return translate("validation {at:g}", at=at) if unit == "validation" else translate("step {at:g}", at=at)


def late_gain(costs: Sequence[float]) -> float:
    """The gain of the last third of the validations over the third before it; below 0 for a loss."""
    third = max(1, len(costs) // 3)
    return fmean(costs[-2 * third : -third]) - fmean(costs[-third:])


def is_falling(steps: Sequence[float], losses: Sequence[float], since: float) -> bool:
    """Whether the training loss is lower at the end than around a step."""
    before = [loss for step, loss in zip(steps, losses, strict=True) if step <= since][-5:]
    after = [loss for step, loss in zip(steps, losses, strict=True) if step > since][-5:]
    return bool(before and after) and fmean(after) < fmean(before)
