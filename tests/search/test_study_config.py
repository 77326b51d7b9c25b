"""A command whose settings contradict those of the study is refused before it spoils the study."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.instant_search import PLAN
from tunelab.errors import ConfigError
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.search_config import SearchRequest
from tunelab.search.space import build_space
from tunelab.search.study_config import check_compatible
from tunelab.search.study_storage import STUDY_NAME, open_storage, open_study

ADDRESS = "postgresql://me:hunter2@host/db"


def request(fixed: tuple[str, ...] = ("batch_size=8", "logger=csv"), **params: Any) -> SearchRequest:
    return SearchRequest(fixed, build_space(params or {"lr": "interval(1e-5,1e-3)"}, {}, {}), (), None)


def command(root: Path, asked: SearchRequest, objectives: tuple[str, ...] = ("val/loss",), **changes: Any) -> None:
    """Check the settings of a command against a study of its own making."""
    folder, plan = StudyFolder(root), replace(PLAN, **changes)
    storage, _ = open_storage(None, folder)
    study = open_study(storage, STUDY_NAME, ["min"] * len(objectives), None, None)
    check_compatible(folder, study, plan, asked, objectives, ["min"] * len(objectives))


def test_the_same_terms_with_more_trials_and_another_logger_are_the_same_study(tmp_path: Path) -> None:
    command(tmp_path, request())
    command(tmp_path, request(("batch_size=8", "logger=wandb")), trials=40, parallel_trials=2, sampler="tpe")


@pytest.mark.parametrize(
    ("asked", "changes", "words"),
    [
        (request(lr="interval(1e-5,1e-2)"), {}, "lr varied over .* and now over"),
        (request(lr="interval(1e-5,1e-3)", optimizer=["adamw", "sgd"]), {}, "optimizer varied over nothing"),
        (request(("batch_size=16",)), {}, "batch_size was 8 in the study's trials and is now 16"),
        (request(()), {}, "batch_size was 8 in the study's trials and is now not given"),
        (request(), {"constraints": {"train/time": 9.0}}, "the limit was"),
    ],
)
def test_other_terms_are_refused_with_what_differs_and_a_way_out(
    tmp_path: Path, asked: SearchRequest, changes: Any, words: str
) -> None:
    command(tmp_path, request())
    with pytest.raises(ConfigError, match=words) as told:
        command(tmp_path, asked, **changes)

    assert f"search.warm_start=[{tmp_path}]" in str(told.value)


def test_a_study_whose_space_is_described_in_older_words_goes_on(tmp_path: Path) -> None:
    command(tmp_path, request())
    file = StudyFolder(tmp_path).study_config
    recorded = json.loads(file.read_text())
    file.write_text(json.dumps({**recorded, "space": {"lr": "1e-05 to 0.001, by its logarithm"}}))

    command(tmp_path, request())
    with pytest.raises(ConfigError, match="lr varied over 1e-05 to 0.001, log scale and now over"):
        command(tmp_path, request(lr="interval(1e-5,1e-2)"))


def test_the_address_of_a_database_is_in_no_file(tmp_path: Path) -> None:
    command(tmp_path, request(), storage=ADDRESS)

    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_a_record_that_belongs_to_another_folder_is_refused(tmp_path: Path) -> None:
    command(tmp_path / "one", request())
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "journal.log").write_bytes((tmp_path / "one" / "journal.log").read_bytes())
    with pytest.raises(ConfigError, match="belongs to another folder"):
        command(tmp_path / "two", request())
