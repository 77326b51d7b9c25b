"""What each value of a setting can do at its best: isolation plots.  Pure.

At each value, or stretch of values, the other settings stand where they are best (Deep Learning Tuning Playbook,
Godbole et al. 2023, "Extracting insight from experiment results").  The band tells how far luck in which trials were
drawn moves that best: the bootstrap of the trials within the stretch.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunelab.effects.points import Point
from tunelab.effects.setting import ABSENT, Setting, is_number, told

DRAWS = 300
STRETCHES = 8  # at most
EACH = 4  # trials that a stretch should hold


@dataclass(frozen=True)
class Stretch:
    """Values of a setting that are looked at together.

    Attributes:
        label: In words.
        place: Where it stands on the axis; its number where values have no order.
        best: The best cost within.
        low, high: The middle 90 % of what the best would be for other draws of as many trials.
        count: Configurations within.
        point: The best of them.
    """

    label: str
    place: float
    best: float
    low: float
    high: float
    count: int
    point: Point


def isolation(setting: Setting, found: Sequence[Point], *, seed: int = 0) -> list[Stretch]:
    """The stretches of a setting, in order, those without a trial left out."""
    listed = bool(setting.values)
    groups: dict[float, list[Point]] = defaultdict(list)
    many = max(2, min(STRETCHES, len(found) // EACH))
    labels = list(dict.fromkeys(str(point.params.get(setting.name, ABSENT)) for point in found))
    for point in found:
        value = point.params.get(setting.name, ABSENT)
        if not setting.numeric or not is_number(value):
            groups[float(labels.index(str(value))) + (1e6 if setting.numeric else 0)].append(point)
        elif listed:
            groups[float(value)].append(point)
        else:
            groups[float(min(many - 1, max(0, int(setting.unit(float(value)) * many))))].append(point)
    dice = np.random.default_rng(seed)
    out = []
    for key in sorted(groups):
        inside = groups[key]
        costs = np.array([point.cost for point in inside])
        drawn = costs[dice.integers(0, len(costs), (DRAWS, len(costs)))].min(axis=1)
        low, high = np.quantile(drawn, [0.05, 0.95])
        best = min(inside, key=lambda point: point.cost)
        value = best.params.get(setting.name, ABSENT)
        if not setting.numeric or not is_number(value) or listed:
            label, place = told(value), float(value) if setting.numeric and is_number(value) else key
        else:
            ends = setting.at(key / many), setting.at((key + 1) / many)
            label, place = f"{ends[0]:.3g} to {ends[1]:.3g}", setting.at((key + 0.5) / many)
        out.append(Stretch(label, place, float(costs.min()), float(low), float(high), len(inside), best))
    return out
