"""The journal of a study opens in Optuna's own programs: its storage, and optuna-dashboard where it is installed."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tunelab.runs.study_folder import StudyFolder
from tunelab.search.study_storage import STUDY_NAME, open_storage, open_study


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    folder = StudyFolder(tmp_path / "study")
    folder.root.mkdir()
    storage, _ = open_storage(None, folder)
    study = open_study(storage, STUDY_NAME, ["min"], optuna.samplers.RandomSampler(seed=0), None)
    for _ in range(3):
        trial = study.ask()
        trial.report(2.0, 1)
        study.tell(trial, trial.suggest_float("lr", 1e-5, 1e-2, log=True))
    return folder.journal


def test_plain_optuna_reads_the_journal(journal: Path) -> None:
    study = optuna.load_study(study_name=STUDY_NAME, storage=JournalStorage(JournalFileBackend(str(journal))))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.best_value == min(trial.params["lr"] for trial in study.trials)


def test_the_dashboard_shows_the_study_and_its_trials(journal: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    app = dashboard.wsgi(JournalStorage(JournalFileBackend(str(journal))))
    (summary,) = get(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == STUDY_NAME
    trials = get(app, f"/api/studies/{summary['study_id']}")["trials"]
    assert [len(trial["values"]) for trial in trials] == [1, 1, 1]


def get(app: Any, path: str) -> Any:
    """The answer of a web application to one request, without a server."""
    status: list[str] = []
    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "test", "SERVER_PORT": "80"}
    environment |= {
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    body = b"".join(app(environment, lambda code, headers, fault=None: status.append(code)))
    assert status[0].startswith("200"), status
    return json.loads(body)
