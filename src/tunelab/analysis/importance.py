"""Hyper-parameter importance: functional ANOVA, partial dependence, PED-ANOVA, isolation plots.

Functional analysis of variance (Hooker 2007; Hutter, Hoos, Leyton-Brown 2014) of a fitted surface, by the sampling
of Saltelli (2010) for first-order and of Jansen (1999) for total shares.

PED-ANOVA (Watanabe et al. 2023), as Optuna computes it, compares where the best trials lie with where all lie.  It
needs no model, and it knows only the space that was searched: a setting whose range was chosen well looks
unimportant.

Isolation plots: at each value, or stretch of values, the best score found with it (Deep Learning Tuning Playbook,
Godbole et al. 2023, "Extracting insight from experiment results").  The band is the bootstrap of that best score over
the trials within the stretch.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from tunelab.analysis.configurations import ABSENT, Configuration, Setting, format_value, is_number
from tunelab.analysis.surrogate import CATEGORY_DISTANCE, Surrogate
from tunelab.language.translation import translate

FloatArray = NDArray[np.float64]
SOBOL_DRAWS = 2048


@dataclass(frozen=True)
class VarianceShares:
    """First-order, second-order and total Sobol shares of the variance, between 0 and 1.

    Attributes:
        first_order: What each setting explains by itself.
        total: What would be left unexplained without it: alone and with others.
        second_order: What two explain together beyond both alone, by their places.
    """

    first_order: tuple[float, ...]
    total: tuple[float, ...]
    second_order: dict[tuple[int, int], float]


def variance_shares(surface: Surrogate, *, draws: int = SOBOL_DRAWS, seed: int = 0) -> VarianceShares:
    """The Sobol shares of a surrogate over its whole space."""
    columns = surface.input_columns
    first, second = columns.sample(draws, seed), columns.sample(draws, seed + 1)
    owner, many = np.array(columns.setting_of_column), len(columns.settings)
    at_first, at_second = surface.predict(first), surface.predict(second)
    centre = float(np.concatenate([at_first, at_second]).mean())
    at_first, at_second = at_first - centre, at_second - centre
    whole = float(np.concatenate([at_first, at_second]).var())
    if whole <= 0:
        return VarianceShares((0.0,) * many, (0.0,) * many, {pair: 0.0 for pair in combinations(range(many), 2)})

    def mixed(places: Sequence[int]) -> FloatArray:
        """Costs where these settings come from the second draw and all others from the first."""
        conditioned = first.copy()
        chosen = np.isin(owner, places)
        conditioned[:, chosen] = second[:, chosen]
        return np.asarray(surface.predict(conditioned) - centre, dtype=np.float64)

    swapped = [mixed([at]) for at in range(many)]
    alone = [float((at_second * (one - at_first)).mean()) / whole for one in swapped]
    total = [float(((at_first - one) ** 2).mean()) / 2 / whole for one in swapped]
    pairs = {
        (a, b): float((at_second * (mixed([a, b]) - at_first)).mean()) / whole - alone[a] - alone[b]
        for a, b in combinations(range(many), 2)
    }
    return VarianceShares(
        tuple(min(1.0, max(0.0, one)) for one in alone),
        tuple(min(1.0, max(0.0, one)) for one in total),
        {pair: min(1.0, max(0.0, one)) for pair, one in pairs.items()},
    )


def partial_dependence(
    surface: Surrogate, at: int, *, steps: int = 25, draws: int = 128
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Partial dependence (Friedman 2001) on one setting: the mean over all others.

    Returns:
        Places in [0, 1] of a number, or the number of each value; mean costs; standard deviations of those means.
    """
    columns = surface.input_columns
    base, owner, labels = columns.sample(draws, 7), np.array(columns.setting_of_column), columns.labels[at]
    own = np.flatnonzero(owner == at)
    places: FloatArray = np.arange(len(labels), dtype=np.float64) if labels else np.linspace(0.0, 1.0, steps)
    means, spreads = [], []
    for place in places:
        rows = base.copy()
        if labels:
            rows[:, own] = 0.0
            rows[:, own[int(place)]] = CATEGORY_DISTANCE
        else:
            rows[:, own] = place
        mean, spread = surface.mean_and_std(rows)
        means.append(mean)
        spreads.append(spread)
    return places, np.array(means), np.array(spreads)


MIN_CONFIGURATIONS = 10  # configurations from which on a tenth is more than nothing


def ped_anova_importance(
    settings: Sequence[Setting], configurations: Sequence[Configuration], *, quantile: float = 0.1
) -> dict[str, float]:
    """PED-ANOVA importances by setting, which sum to 1; empty of too few configurations or where nothing differs.

    Args:
        settings: What varied.
        configurations: Configurations with their costs.
        quantile: Share of the configurations that count as the best.
    """
    kept = [point for point in configurations if all(setting.name in point.params for setting in settings)]
    if len(kept) < MIN_CONFIGURATIONS or len({point.cost for point in kept}) < 2:
        return {}
    spaces = {setting.name: to_distribution(setting, [p.params[setting.name] for p in kept]) for setting in settings}
    optuna.logging.set_verbosity(logging.ERROR)
    study = optuna.create_study(direction="minimize")
    for point in kept:
        params = {name: to_stored_value(point.params[name], space) for name, space in spaces.items()}
        study.add_trial(create_trial(params=params, distributions=spaces, value=point.cost))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(quantile, 4 / len(kept)))
    shares: Mapping[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {setting.name: float(shares.get(setting.name, 0.0)) for setting in settings}


def to_distribution(setting: Setting, values: Sequence[Any]) -> BaseDistribution:
    """The axis as Optuna describes it, wide enough for what was tried."""
    if not setting.numeric or not all(map(is_number, values)) or (not setting.is_range and not setting.log):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    low, high = min(setting.low, *values), max(setting.high, *values)
    if setting.integer:
        return IntDistribution(int(low), int(high), log=setting.log)
    return FloatDistribution(float(low), float(high), log=setting.log)


def to_stored_value(value: Any, space: BaseDistribution) -> Any:
    """A value as an Optuna distribution stores it."""
    return float(value) if isinstance(space, FloatDistribution) else value


BOOTSTRAP_DRAWS = 300
MAX_STRETCHES = 8  # at most
TRIALS_PER_STRETCH = 4  # trials that a stretch should hold


@dataclass(frozen=True)
class ValueRange:
    """A range of values of one setting, with the best cost in it.

    Attributes:
        label: In words.
        place: Where it stands on the axis; its number where values have no order.
        best: The best cost within.
        low, high: The middle 90 % of what the best would be for other draws of as many trials.
        count: Configurations within.
        point: The best of them.
        start, end: Ends of the stretch of a range; both the value itself where values are listed.
    """

    label: str
    place: float
    best: float
    low: float
    high: float
    count: int
    point: Configuration
    start: float = math.nan
    end: float = math.nan


def isolate_setting(setting: Setting, configurations: Sequence[Configuration], *, seed: int = 0) -> list[ValueRange]:
    """The ranges of a setting in order, those without a trial left out."""
    listed = bool(setting.values)
    groups: dict[float, list[Configuration]] = defaultdict(list)
    many = max(2, min(MAX_STRETCHES, len(configurations) // TRIALS_PER_STRETCH))
    labels = list(dict.fromkeys(str(point.params.get(setting.name, ABSENT)) for point in configurations))
    for point in configurations:
        value = point.params.get(setting.name, ABSENT)
        if not setting.numeric or not is_number(value):
            groups[float(labels.index(str(value))) + (1e6 if setting.numeric else 0)].append(point)
        elif listed:
            groups[float(value)].append(point)
        else:
            groups[float(min(many - 1, max(0, int(setting.to_unit(float(value)) * many))))].append(point)
    dice = np.random.default_rng(seed)
    out = []
    for key in sorted(groups):
        inside = groups[key]
        costs = np.array([point.cost for point in inside])
        drawn = costs[dice.integers(0, len(costs), (BOOTSTRAP_DRAWS, len(costs)))].min(axis=1)
        low, high = np.quantile(drawn, [0.05, 0.95])
        best = min(inside, key=lambda point: point.cost)
        value = best.params.get(setting.name, ABSENT)
        if not setting.numeric or not is_number(value) or listed:
            label, place = format_value(value), float(value) if setting.numeric and is_number(value) else key
            ends = place, place
        else:
            ends = setting.from_unit(key / many), setting.from_unit((key + 1) / many)
            label, place = (
                translate("{low:.3g} to {high:.3g}", low=ends[0], high=ends[1]),
                setting.from_unit((key + 0.5) / many),
            )
        out.append(ValueRange(label, place, float(costs.min()), float(low), float(high), len(inside), best, *ends))
    return out


def is_clearly_worse(one: ValueRange, best: ValueRange, noise: float) -> bool:
    """Whether a range's best is worse beyond noise; for a single configuration only the seeds' noise can tell."""
    if one.low <= best.high:
        return False
    return one.count > 2 if math.isnan(noise) else one.best - best.best > 2 * math.sqrt(2) * noise
