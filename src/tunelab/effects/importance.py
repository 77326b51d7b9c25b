"""How important each setting is for being among the best: PED-ANOVA, as Optuna computes it.

PED-ANOVA (Watanabe et al. 2023) compares where the best trials lie with where all lie.  It needs no model, and it
knows only the space that was searched: a setting whose range was chosen well looks unimportant.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from tunelab.effects.points import Point
from tunelab.effects.setting import Setting, is_number

FEWEST = 10  # configurations from which on a tenth is more than nothing


def ped_anova(settings: Sequence[Setting], found: Sequence[Point], *, quantile: float = 0.1) -> dict[str, float]:
    """Shares that sum to 1, by setting; empty of too few configurations or where nothing differs.

    Args:
        settings: What varied.
        found: Configurations with their costs.
        quantile: Share of the configurations that count as the best.
    """
    kept = [point for point in found if all(setting.name in point.params for setting in settings)]
    if len(kept) < FEWEST or len({point.cost for point in kept}) < 2:
        return {}
    spaces = {setting.name: distribution(setting, [p.params[setting.name] for p in kept]) for setting in settings}
    optuna.logging.set_verbosity(logging.ERROR)
    study = optuna.create_study(direction="minimize")
    for point in kept:
        params = {name: stored(point.params[name], space) for name, space in spaces.items()}
        study.add_trial(create_trial(params=params, distributions=spaces, value=point.cost))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(quantile, 4 / len(kept)))
    shares: Mapping[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {setting.name: float(shares.get(setting.name, 0.0)) for setting in settings}


def distribution(setting: Setting, values: Sequence[Any]) -> BaseDistribution:
    """The axis as Optuna describes it, wide enough for what was tried."""
    if not setting.numeric or not all(map(is_number, values)) or (not setting.range and not setting.log):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    low, high = min(setting.low, *values), max(setting.high, *values)
    if setting.integer:
        return IntDistribution(int(low), int(high), log=setting.log)
    return FloatDistribution(float(low), float(high), log=setting.log)


def stored(value: Any, space: BaseDistribution) -> Any:
    """A value as such a distribution holds it."""
    return float(value) if isinstance(space, FloatDistribution) else value
