"""How much of the score's variance over the space each setting explains, alone and in pairs.

Functional analysis of variance (Hooker 2007; Hutter, Hoos, Leyton-Brown 2014) of a fitted surface, by the sampling of
Saltelli (2010) for first-order and of Jansen (1999) for total shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tunelab.effects.surrogate import APART, Surrogate

Figures = NDArray[np.float64]
DRAWS = 2048


@dataclass(frozen=True)
class Shares:
    """Shares of the variance, between 0 and 1.

    Attributes:
        alone: What each setting explains by itself.
        total: What would be left unexplained without it: alone and with others.
        pairs: What two explain together beyond both alone, by their places.
    """

    alone: tuple[float, ...]
    total: tuple[float, ...]
    pairs: dict[tuple[int, int], float]


def shares(surface: Surrogate, *, draws: int = DRAWS, seed: int = 0) -> Shares:
    """The shares of a surface over its whole space."""
    columns = surface.columns
    first, second = columns.draws(draws, seed), columns.draws(draws, seed + 1)
    owner, many = np.array(columns.owner), len(columns.settings)
    at_first, at_second = surface.predict(first), surface.predict(second)
    centre = float(np.concatenate([at_first, at_second]).mean())
    at_first, at_second = at_first - centre, at_second - centre
    whole = float(np.concatenate([at_first, at_second]).var())
    if whole <= 0:
        return Shares((0.0,) * many, (0.0,) * many, {pair: 0.0 for pair in combinations(range(many), 2)})

    def mixed(places: Sequence[int]) -> Figures:
        """Costs where these settings come from the second draw and all others from the first."""
        given = first.copy()
        chosen = np.isin(owner, places)
        given[:, chosen] = second[:, chosen]
        return np.asarray(surface.predict(given) - centre, dtype=np.float64)

    swapped = [mixed([at]) for at in range(many)]
    alone = [float((at_second * (one - at_first)).mean()) / whole for one in swapped]
    total = [float(((at_first - one) ** 2).mean()) / 2 / whole for one in swapped]
    pairs = {
        (a, b): float((at_second * (mixed([a, b]) - at_first)).mean()) / whole - alone[a] - alone[b]
        for a, b in combinations(range(many), 2)
    }
    return Shares(
        tuple(min(1.0, max(0.0, one)) for one in alone),
        tuple(min(1.0, max(0.0, one)) for one in total),
        {pair: min(1.0, max(0.0, one)) for pair, one in pairs.items()},
    )


def dependence(surface: Surrogate, at: int, *, steps: int = 25, draws: int = 128) -> tuple[Figures, Figures, Figures]:
    """Partial dependence (Friedman 2001) on one setting: the mean over all others.

    Returns:
        Places in [0, 1] of a number, or the number of each value; mean costs; standard deviations of those means.
    """
    columns = surface.columns
    base, owner, labels = columns.draws(draws, 7), np.array(columns.owner), columns.labels[at]
    own = np.flatnonzero(owner == at)
    places: Figures = np.arange(len(labels), dtype=np.float64) if labels else np.linspace(0.0, 1.0, steps)
    means, spreads = [], []
    for place in places:
        given = base.copy()
        if labels:
            given[:, own] = 0.0
            given[:, own[int(place)]] = APART
        else:
            given[:, own] = place
        mean, spread = surface.mean_of(given)
        means.append(mean)
        spreads.append(spread)
    return places, np.array(means), np.array(spreads)
