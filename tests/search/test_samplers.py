"""Samplers learn from what they are shown, and on plain studies propose what Optuna's own would."""

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.search.samplers import SamplerPair, impute_trials, make_samplers, suggest_with_imputation
from tunelab.search.space import Params, Space, build_space
from tunelab.search.suggest import DUPLICATE_OF, SamplerProposer

SPACE = build_space({"lr": "interval(1e-5,1e-1)", "decay": "interval(0.0,1.0)"}, {}, {})
ARMS = build_space(
    {"optimizer": ["adamw", "sgd"]},
    {"optimizer=adamw": {"lr": "interval(1e-5,1e-2)"}, "optimizer=sgd": {"lr": "interval(0.01,10.0)"}},
    {},
)
MINIMIZE = [StudyDirection.MINIMIZE]


def tried(space: Space, values: list[float | None], seed: int = 0) -> list[FrozenTrial]:
    """Trials at random with these values; None failed."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for value in values:
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, value, state=None if value is not None else TrialState.FAIL)
    return study.get_trials()


@pytest.mark.parametrize("make", [lambda: TPESampler(seed=3), lambda: TPESampler(seed=3, multivariate=True)])
def test_on_a_plain_study_tpe_proposes_what_optuna_s_own_would(make: Callable[[], BaseSampler]) -> None:
    trials = tried(SPACE, [float(x % 7) for x in range(14)])
    study = optuna.create_study(sampler=make())
    study.add_trials(trials)
    assert suggest_with_imputation(trials, MINIMIZE, make(), SPACE) == SPACE.suggest(study.ask())


def test_where_no_value_is_bad_a_gaussian_process_proposes_what_optuna_s_own_would() -> None:
    trials = tried(SPACE, [1.0, 2.0, 2.0, 2.0])  # none is above the median: nothing to rank
    study = optuna.create_study(sampler=GPSampler(seed=3, n_startup_trials=2))
    study.add_trials(trials)
    ours = suggest_with_imputation(trials, MINIMIZE, GPSampler(seed=3, n_startup_trials=2), SPACE)
    assert ours == pytest.approx(SPACE.suggest(study.ask()))


def test_failed_and_running_trials_count_as_the_worst_and_pruned_ones_as_foreseen() -> None:
    whole = tried(SPACE, [1.0, 3.0])
    whole[0].intermediate_values, whole[1].intermediate_values = {1: 2.0}, {1: 4.0}
    kinds = whole[0].distributions

    def more(state: TrialState, scores: dict[int, float]) -> FrozenTrial:
        params = {"lr": 1e-3, "decay": 0.5}
        return create_trial(state=state, params=params, distributions=kinds, intermediate_values=scores)

    trials = [
        *whole,
        more(TrialState.FAIL, {}),
        more(TrialState.RUNNING, {1: 0.1}),
        more(TrialState.PRUNED, {1: 5.0}),
    ]
    values = [trial.value for trial in impute_trials(trials, MINIMIZE, TPESampler(), SPACE)]
    assert values == pytest.approx([1.0, 3.0, 3.0, 3.0, 4.0])


def test_where_everything_fails_above_a_rate_a_gaussian_process_stays_below_it() -> None:
    def value(params: Params) -> float | None:
        lr = float(str(params["lr"]))
        return None if lr > 3e-3 else 1.0 + (float(str(params["decay"])) - 0.3) ** 2 + 1e-4 / lr

    samplers = make_samplers("gp", SPACE, seed=1, trials=16, options={})
    study = optuna.create_study(sampler=samplers.initial)
    proposals = SamplerProposer(study, SPACE, samplers, seed=1)
    for _ in range(16):
        found = proposals.next(study.get_trials())
        assert found is not None
        result = value(found[1])
        study.tell(found[0], result, state=None if result is not None else TrialState.FAIL)
    failed = [trial.state is TrialState.FAIL for trial in study.trials]
    assert sum(failed[8:]) <= 4  # all eight of them where the sampler does not hear of failures


@pytest.mark.parametrize("make", [lambda: TPESampler(seed=0, group=True, multivariate=True), lambda: GPSampler(seed=0)])
def test_one_setting_with_a_range_of_its_own_in_each_arm_is_learned_in_each(make: Callable[[], BaseSampler]) -> None:
    rates = {"adamw": [1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 1e-2], "sgd": [0.01, 0.1, 0.9, 1.0, 1.1, 10.0]}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for optimizer, row in rates.items():
        for lr in row:
            study.enqueue_trial({"optimizer": optimizer, "lr": lr})
            trial = study.ask()
            ARMS.suggest(trial)
            study.tell(trial, abs(lr - 1.0) + (0.0 if optimizer == "sgd" else 1.0))
    proposed = [
        suggest_with_imputation(study.trials, MINIMIZE, sampler, ARMS) for sampler in [make()] for _ in range(4)
    ]
    assert all(ARMS.contains(params) for params in proposed)
    assert any(p["optimizer"] == "sgd" and 0.3 < float(str(p["lr"])) < 3.0 for p in proposed)


def test_a_repeated_proposal_that_never_ran_is_not_shown_as_a_failure() -> None:
    choices = build_space({"a": [1, 2, 3], "b": [1, 2, 3]}, {}, {})
    seen: list[list[FrozenTrial]] = []

    class Spy(TPESampler):
        def sample_independent(self, study, trial, name, kind):  # type: ignore[no-untyped-def]
            seen.append(study.get_trials(states=(TrialState.COMPLETE,)))
            return super().sample_independent(study, trial, name, kind)

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for value, attribute in ((1.0, {}), (None, {DUPLICATE_OF: 0})):
        study.enqueue_trial({"a": 1, "b": 1}, user_attrs=attribute)
        trial = study.ask()
        choices.suggest(trial)
        study.tell(trial, value, state=TrialState.COMPLETE if value is not None else TrialState.FAIL)
    SamplerProposer(study, choices, SamplerPair(study.sampler, Spy(seed=0, n_startup_trials=50))).next(
        study.get_trials()
    )
    assert [len(trials) for trials in seen[:1]] == [1]
