"""Which trials are ended early, beside Optuna's own rule."""

from collections.abc import Sequence

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner
from optuna.trial import TrialState

from tunelab.search.pruners import Hyperband, make_pruner
from tunelab.search.search_config import resolve_pruner


def lengths(pruner: BasePruner, epochs: int, trials: int = 60) -> Sequence[int]:
    """The validations that each trial of a search reached; later trials are worse."""
    study = optuna.create_study(study_name="lengths", pruner=pruner)
    found = []
    for number in range(trials):
        trial = study.ask()
        for epoch in range(1, epochs + 1):
            trial.report(number + 1.0 / epoch, epoch)
            if epoch < epochs and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, number)
        found.append(epoch)
    return found


@pytest.mark.parametrize("longest", [4, 9, 27])
def test_with_the_length_of_a_run_given_it_is_optuna_s_hyperband(longest: int) -> None:
    ours = lengths(Hyperband(min_resource=1, reduction_factor=3, max_resource=longest), 12)
    assert ours == lengths(HyperbandPruner(min_resource=1, reduction_factor=3, max_resource=longest), 12)


def test_no_bracket_is_a_search_without_pruning() -> None:
    """On nine validations Optuna's own has its last rung at the ninth, where there is nothing left to save."""
    assert lengths(make_pruner("hyperband", {}), 9)[10:].count(9) == 0
    assert lengths(HyperbandPruner(min_resource=1, reduction_factor=3), 9)[10:].count(9) > 3


def test_a_wrong_option_is_told_at_once() -> None:
    with pytest.raises(TypeError, match="factor"):
        make_pruner("hyperband", {"factor": 3})


def test_samplers_that_need_whole_trials_get_them() -> None:
    assert [resolve_pruner("auto", sampler, 30) for sampler in ("cmaes", "evolution", "gp", "tpe")] == [
        "none",
        "none",
        "hyperband",
        "asha",
    ]
    assert resolve_pruner("auto", "tpe", 8) == "none"
