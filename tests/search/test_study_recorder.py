"""The files that a search writes of its study, without a search around it."""

from pathlib import Path

import yaml

from support.instant_search import LINE, PLAN, engine, run
from support.search_commands import summary
from tunelab.search.run_search import PreparedSearch, StudyRecorder
from tunelab.search.search_config import SearchRequest
from tunelab.search.search_console import ProgressDisplay


def test_results_and_the_best_configuration_are_written(tmp_path: Path) -> None:
    made = engine(tmp_path, trials=3)
    assert run(made)
    study = made.pool.store.study
    prepared = PreparedSearch(
        search=PLAN,
        request=SearchRequest(("optimizer=sgd",), LINE, (), None),
        folder=made.pool.folder,
        objectives=["val/loss"],
        modes=["min"],
        initial_trials=[],
        slots=[{}],
        fixed=[],
        config_groups=frozenset({"optimizer"}),
        effect=None,
        logger={},
    )
    StudyRecorder(prepared, study, ProgressDisplay(3, ["val/loss"], study.directions)).record(made)

    written = summary(tmp_path)
    assert (written["best_trial"], written["test_looks"]) == (study.best_trial.number, 0)
    assert (written["fixed"], written["schedule"]) == (["optimizer=sgd"], [])
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert best == {"defaults": [{"override /optimizer": "sgd"}], "x": study.best_params["x"]}
