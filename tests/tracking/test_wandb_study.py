"""The report on a whole search reaches W&B as an artifact, in the group of its trials, at once or synced later."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.documented_commands import furnish
from support.fake_wandb_server import Told, stand_in
from support.made_up_studies import study
from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET
from tunelab.report.render import write_report
from tunelab.report.study_reader import read_study_results
from tunelab.report.study_report import build_study_report

CODE = """
import sys
from dataclasses import replace
from pathlib import Path
from tunelab.config.schema import LoggerConfig
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.study_artifacts import log_study_report
root = Path('my_study').absolute()
logger = LoggerConfig(kind='wandb', mode=sys.argv[1], project='demo', job_type='train', artifacts=('report',))
for each in (logger, replace(logger, artifacts=('export',)), replace(logger, kind='csv')):
    log_study_report(each, StudyFolder(root), root / 'report' / 'report.html', {'val/loss': 0.5, 'trials': 41})
"""

pytestmark = pytest.mark.slow  # each server takes a whole search


def run(folder: Path, address: str, *command: str) -> str:
    """A command in a process of its own, with a key for the stand-in; its standard output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    ours = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40, "HOME": str(folder)}
    ours["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(command, cwd=folder, env=kept | ours, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sync(folder: Path, address: str, place: Path) -> None:
    """Upload the one offline run below a folder."""
    (offline,) = (place / "wandb").glob("offline-run-*")
    run(folder, address, str(Path(sys.executable).with_name("wandb")), "sync", str(offline))


def said(told: Told, operation: str) -> list[dict[str, Any]]:
    return [variables for name, variables in told if name == operation]


def put(told: Told, ending: str) -> list[bytes]:
    return [variables["body"] for path, variables in told if path.startswith("/put/") and path.endswith(ending)]


@pytest.fixture(scope="module", params=["online", "offline"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Told, bytes]]:
    """The requests that one study sends to the stand-in, and the page as it lies on the disk."""
    folder = tmp_path_factory.mktemp("study")
    root = study(folder / "my_study")
    page = write_report(build_study_report(read_study_results(root)), root / "report")["report"]
    with stand_in() as (address, heard):
        out = run(folder, address, sys.executable, "-c", CODE, request.param)
        if request.param == "offline":
            assert heard == [] and "wandb leet my_study/wandb" in out
            sync(folder, address, root)
        yield heard, page.read_bytes()


def test_the_report_is_an_artifact_of_a_run_in_the_group_of_the_trials(told: tuple[Told, bytes]) -> None:
    heard, page = told

    # only the block that asks for the report began a run
    runs = {(v["name"], v["displayName"], v["groupName"], v["jobType"]) for v in said(heard, "UpsertBucket")}
    named = {one for one in runs if one[1]}
    assert {one[1:] for one in named} == {("my_study/report", "my_study", "study")}
    assert len({one[0] for one in named}) == 1

    # and the page arrived whole, as an artifact that was closed
    (made,) = [v["input"] for v in said(heard, "CreateArtifact") if v["input"]["artifactTypeName"] == "report"]
    assert made["artifactCollectionName"] == "report-my_study", made
    assert page in put(heard, "/report.html")
    assert len(said(heard, "CommitArtifact")) == len(said(heard, "CreateArtifact"))


def test_its_summary_holds_the_best_and_its_config_what_was_asked(told: tuple[Told, bytes]) -> None:
    heard, _ = told
    summary = json.loads(put(heard, "wandb-summary.json")[-1])
    assert summary["study/val/loss"] == 0.5
    assert summary["study/trials"] == {"max": 41}
    (first, *_) = [v for v in said(heard, "UpsertBucket") if v["displayName"]]
    assert json.loads(first["config"])["fixed"] == {"value": ["data=mine"]}


def test_a_search_leaves_its_report_offline_and_goes_on_in_the_same_run(tmp_path: Path) -> None:
    # Given a search without a key, and the same with one trial more
    place = furnish(tmp_path)
    words = ["-m", "data=instruction", "data.train=my.jsonl", "data.limit=40", *MODEL, *QUIET[1:], "max_steps=2"]
    words += ["search=random", "search/space=lr_only", "search.isolation=inline", "hydra.sweep.dir=mine", "save=false"]
    words += ["logger=wandb", "logger.mode=offline", "logger.artifacts=[report]"]
    names = set()
    for trials in (2, 3):
        out = run(place, "http://127.0.0.1:1", sys.executable, "train.py", *words, f"search.trials={trials}")
        names.add((place / "mine" / "wandb" / "id.txt").read_text())
        assert f"wandb leet {Path('mine') / 'wandb'}" in out

    # Then both ends are one run, and what it holds reaches a server later
    assert len(names) == 1
    last = sorted((place / "mine" / "wandb").glob("offline-run-*"))[-1]
    with stand_in() as (address, heard):
        run(place, address, str(Path(sys.executable).with_name("wandb")), "sync", str(last))
        assert (place / "mine" / "report" / "report.html").read_bytes() in put(heard, "/report.html")
        groups = {v["groupName"] for v in said(heard, "UpsertBucket") if v["displayName"]}
    assert groups == {"mine"}
