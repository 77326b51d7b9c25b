"""Whether signals vanish or explode on their way through a fresh model: one rule, stated.  Pure.

After Glorot and Bengio (2010): a network learns when neither activations nor gradients change their scale much from
layer to layer.  Both are looked at along the layers: the ratio of the last to the first, and the factor per layer
that a line through the logarithms has.

* exploding: a value is not finite; or the ratio is above 10,000; or it is above 100 and the factor above 3 per layer.
* vanishing: the same below 1/10,000, or below 1/100 at less than 1/3 per layer; or half of the layers change what
  enters them by less than 1/10,000 of its size, or all of them together by less than a tenth, so that the depth does
  nothing.
* healthy: anything else.  Residual networks grow with the root of their depth, and pretrained ones a few hundred times
  over dozens of layers, which the two bounds leave room for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tunelab.inspection.signals import Signals

FAR = 1e4  # ratio of last to first that is too much at any depth
SOME = 1e2  # ratio that is too much where few layers make it
STEEP = 3.0  # factor of one layer that counts as few
IDLE = 1e-4  # share of its input that a layer changes at least
TOGETHER = 0.1  # the same of all layers, summed: what they change at most

Word = Literal["healthy", "vanishing", "exploding"]


@dataclass(frozen=True)
class Verdict:
    """What is said of a fresh model.

    Attributes:
        word: In a word.
        reasons: In sentences; what was found where it is healthy.
        growth: Fitted factor per layer of the signal going up; nan where it cannot be told.
        gradient_growth: The same of the gradient going down.
    """

    word: Word
    reasons: list[str]
    growth: float
    gradient_growth: float


def judge(signals: Signals) -> Verdict:
    """The verdict on what was measured."""
    ways = {
        "the signal": [value for value in signals.forward],
        "the gradient": [value for value in reversed(signals.backward) if not math.isnan(value)],
    }
    found: list[tuple[Word, str]] = []
    told = []
    for what, values in ways.items():
        word, sentence = along(what, values)
        found += [(word, sentence)] * (word != "healthy")
        told.append(sentence)
    changes = [value for value in signals.added[1:] if not math.isnan(value)]
    if changes and not found and any(changes) and median(changes) < IDLE:
        least = f"{median(changes):.1e}"
        found.append(("vanishing", f"half of the layers change what enters them by {least} of its size or less"))
    elif any(changes) and not found and sum(changes) < TOGETHER:
        found.append(
            ("vanishing", f"all layers together change what enters them by {sum(changes):.1e} of its size or less")
        )
    elif changes and not any(changes):
        told.append("every layer starts as the identity")
    word = next((word for word, _ in found if word == "exploding"), found[0][0] if found else "healthy")
    growths = [factor(values) for values in ways.values()]
    return Verdict(word, [sentence for _, sentence in found] or told, *growths)


def along(what: str, values: Sequence[float]) -> tuple[Word, str]:
    """The verdict on one way through the layers, and the sentence for it."""
    direction = "up" if what == "the signal" else "down"
    if any(not math.isfinite(value) for value in values):
        return "exploding", f"{what} is not finite"
    if len(values) < 2:
        return "healthy", f"{what} passes fewer than two layers"
    if not all(values):
        return "vanishing", f"{what} is 0 in {sum(not value for value in values)} of {len(values)} places"
    ratio, each = values[-1] / values[0], factor(values)
    sentence = f"{what} is multiplied by {ratio:.3g} on its way {direction}, {each:.3g} per layer"
    if ratio > FAR or (ratio > SOME and each > STEEP):
        return "exploding", sentence
    if ratio < 1 / FAR or (ratio < 1 / SOME and each < 1 / STEEP):
        return "vanishing", sentence
    return "healthy", sentence


def factor(values: Sequence[float]) -> float:
    """What each layer multiplies by: e to the slope of the least-squares line through the logarithms."""
    if len(values) < 2 or any(not math.isfinite(value) or value <= 0 for value in values):
        return math.nan
    middle = (len(values) - 1) / 2
    logs = [math.log(value) for value in values]
    slope = sum((place - middle) * log for place, log in enumerate(logs))
    return math.exp(slope / sum((place - middle) ** 2 for place in range(len(values))))
