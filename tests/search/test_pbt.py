"""Population based training: who goes on, who takes over, from which checkpoint, and that it pays."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf

from support.instant_search import PLAN, engine, run
from tunelab.errors import ConfigError
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.pbt import (
    GENERATION,
    MEMBER,
    PARENT,
    PbtConfig,
    PopulationProposer,
    check_pbt,
    parse_pbt_config,
    perturb,
    rank_members,
    settings_schedule,
)
from tunelab.search.search_config import SearchRequest
from tunelab.search.space import Choice, Params, build_space, make_range

SPACE = build_space({"lr": "tag(log,interval(1e-3,1.0))"}, {}, {})


def population(
    root: Path, study: optuna.Study, members: int, generations: int, seed: int, owed: Any = ()
) -> PopulationProposer:
    return PopulationProposer(study, StudyFolder(root), SPACE, PbtConfig(members, generations), owed, seed)


def descent(loss: float, lr: float, generation: int, generations: int) -> float:
    """A stage of training whose best rate falls from 0.3 to 0.003, as with a schedule nobody knows."""
    best = 0.3 * (0.01 ** (generation / (generations - 1)))
    return loss * (0.3 + 0.7 * min(1.0, abs(math.log10(lr / best))))


def trained(tmp_path: Path, members: int, generations: int, seed: int) -> optuna.Study:
    """A whole population over `descent`."""
    study = optuna.create_study()
    made, losses = population(tmp_path, study, members, generations, seed), dict[int, float]()
    while found := made.next(study.trials):
        trial, params = found
        facts = study.trials[trial.number].user_attrs
        before = losses.get(facts.get(PARENT, -1), 1.0)
        losses[trial.number] = descent(before, float(params["lr"]), facts[GENERATION], generations)  # type: ignore[arg-type]
        study.tell(trial, losses[trial.number])
    return study


def test_every_member_has_every_stage_and_begins_where_its_parent_ended(tmp_path: Path) -> None:
    study = trained(tmp_path, members=4, generations=3, seed=0)

    assert [(t.user_attrs[GENERATION], t.user_attrs[MEMBER]) for t in study.trials] == [
        (generation, member) for generation in range(3) for member in range(4)
    ]
    for trial in study.trials:
        parent = trial.user_attrs.get(PARENT)
        stage = trial.user_attrs["stage"]
        assert (f"trial.parent={tmp_path / str(parent)}" in stage) == (trial.user_attrs[GENERATION] > 0)
        if parent is not None:
            assert study.trials[parent].user_attrs[GENERATION] == trial.user_attrs[GENERATION] - 1
    assert study.trials[0].user_attrs["stage"] == ["trial.until=0.333333"]
    assert not any("until" in word for word in study.trials[-1].user_attrs["stage"])  # the last stage ends the run


def test_the_worst_take_over_from_the_best_and_the_others_keep_what_they_have(tmp_path: Path) -> None:
    study = trained(tmp_path, members=4, generations=2, seed=3)
    first, second = study.trials[:4], study.trials[4:]
    order = sorted(range(4), key=lambda member: first[member].value or 0)

    assert second[order[-1]].user_attrs[PARENT] == order[0]
    assert second[order[-1]].params != first[order[0]].params
    for member in order[:-1]:
        assert second[member].user_attrs[PARENT] == member and second[member].params == first[member].params


def test_a_member_that_failed_is_replaced_and_never_copied(tmp_path: Path) -> None:
    study = optuna.create_study()
    made = population(tmp_path, study, 3, 2, 0)
    for value in (None, 2.0, 1.0):
        trial, _ = made.next(study.trials) or pytest.fail("there must be a stage")
        study.tell(trial, value, state=None if value else optuna.trial.TrialState.FAIL)
    parents = []
    while found := made.next(study.trials):
        parents.append(study.trials[found[0].number].user_attrs[PARENT])
        study.tell(found[0], 1.0)

    assert parents == [2, 2, 2]  # the failed one, and the worse of the other two


def test_no_stage_begins_before_the_one_before_has_ended(tmp_path: Path) -> None:
    study = optuna.create_study()
    made = population(tmp_path, study, 2, 2, 0)
    first, _ = made.next(study.trials) or pytest.fail("there must be a stage")
    second, _ = made.next(study.trials) or pytest.fail("there must be a stage")
    study.tell(first, 1.0)

    assert made.next(study.trials) is None and made.has_pending(study.trials)
    study.tell(second, 1.0)
    assert made.next(study.trials) is not None


def test_it_ends_lower_than_the_best_constant_rate_where_the_best_rate_falls(tmp_path: Path) -> None:
    generations = 8
    constants = []
    for step in range(200):
        loss, lr = 1.0, 10 ** (-3 + 3 * step / 199)
        for generation in range(generations):
            loss = descent(loss, lr, generation, generations)
        constants.append(loss)
    found = [trained(tmp_path, members=8, generations=generations, seed=seed).best_value for seed in range(5)]

    assert sorted(found)[2] < min(constants)  # 8 members against the best of 200 constant rates


def test_a_schedule_is_told_stage_by_stage(tmp_path: Path) -> None:
    study = trained(tmp_path, members=3, generations=4, seed=1)
    schedule = settings_schedule(study.trials, study.best_trial.number)

    assert [line["stage"] for line in schedule] == list(range(study.best_trial.user_attrs[GENERATION] + 1))
    assert schedule[-1]["params"] == study.best_trial.params


def test_nudging_stays_within_what_may_be_tried() -> None:
    dice, values = random.Random(0), (0.0, 0.1, 0.2)
    for known, value in (
        (make_range(1e-5, 1e-3), 1e-3),
        (make_range(0.0, 0.5), 0.0),
        (make_range(1, 4, integer=True), 4),
    ):
        moved = {perturb(known, value, 1.5, dice) for _ in range(40)}
        assert len(moved) == 2 and all(known.contains(one) for one in moved)
    assert {perturb(Choice(values, ("0", "0.1", "0.2")), 0.1, 1.5, dice) for _ in range(40)} == {0.0, 0.2}


def test_members_rank_by_their_newest_score_not_by_their_best() -> None:
    study = optuna.create_study()
    for curve in ((0.1, 0.9), (0.5, 0.4)):
        trial = study.ask()
        for step, value in enumerate(curve):
            trial.report(value, step)
        study.tell(trial, min(curve))

    assert rank_members(dict(enumerate(study.trials)), study.direction) == [1, 0]


def test_the_engine_runs_stages_over_two_slots(tmp_path: Path) -> None:
    space = build_space({"x": "interval(0.0,1.0)"}, {}, {})
    made = engine(tmp_path, trials=6, parallel_trials=2)
    made.proposer = PopulationProposer(made.pool.store.study, StudyFolder(tmp_path), space, PbtConfig(2, 3))

    assert run(made)
    assert [trial.state.name for trial in made.trials()] == ["COMPLETE"] * 6
    assert sorted((tmp_path / "started.txt").read_text().splitlines()) == [f"{number} new" for number in range(6)]


@pytest.mark.parametrize(
    ("params", "trials", "options", "words"),
    [
        ({"model": ["a", "b"]}, 8, {}, "model cannot change then"),
        ({"lr": "interval(0.1,1)"}, 9, {}, "multiple of the population"),
        ({"lr": "interval(0.1,1)"}, 8, {"population": 1}, "at least 2"),
        ({"lr": "interval(0.1,1)"}, 8, {"size": 2}, "size is no setting; there are population"),
        ({"lr": "interval(0.1,1)"}, 40, {}, "3 validations"),
    ],
)
def test_what_cannot_be_is_refused(params: Any, trials: int, options: Any, words: str) -> None:
    plan = replace(PLAN, sampler="pbt", trials=trials, sampler_options=options)
    request = SearchRequest((), build_space(params, {}, {}), (), None)
    with pytest.raises(ConfigError, match=words):
        check_pbt(plan, request, OmegaConf.create({"max_epochs": 3, "trainer": {"val_check_interval": 1.0}}))


def test_what_is_owed_is_where_members_begin(tmp_path: Path) -> None:
    owed: list[tuple[Params, str]] = [({"lr": 0.5}, "default")]
    study = optuna.create_study()
    population(tmp_path, study, 2, 2, 0, owed).next([])

    assert study.trials[0].params == {"lr": 0.5} and study.trials[0].user_attrs["origin"] == "default"
    assert parse_pbt_config(replace(PLAN, sampler="pbt", trials=8)).generations == 2
