"""Who ends a trial early, by name."""

from collections.abc import Mapping
from typing import Any

from optuna import pruners
from optuna.pruners import BasePruner


def make_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """A pruner of Optuna.  It sees one score per validation, counted from 1.

    Args:
        name: As in `search.pruner`.
        options: More arguments of the pruner; a wrong one raises TypeError.
    """
    given = dict(options)
    if name == "median":  # the first trials and the first validation tell too little
        return pruners.MedianPruner(**{"n_startup_trials": 4, "n_warmup_steps": 1, **given})
    if name in ("hyperband", "auto"):  # Li et al. 2018
        return pruners.HyperbandPruner(**{"min_resource": 1, "max_resource": "auto", "reduction_factor": 3, **given})
    if name == "asha":  # asynchronous successive halving, Li et al. 2020
        return pruners.SuccessiveHalvingPruner(**{"min_resource": 1, "reduction_factor": 3, **given})
    return pruners.NopPruner()
