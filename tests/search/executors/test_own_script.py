"""A train.py that was changed: what it does reaches trials, folds and confirmations, forked or as processes."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from support.made_up_studies import study
from support.paths import ROOT
from support.search_commands import TINY
from tunelab.errors import ConfigError
from tunelab.report.compose import compose_report
from tunelab.report.document import Command
from tunelab.report.render import render_markdown
from tunelab.report.study_reader import read_study_results
from tunelab.report.study_report import build_study_report
from tunelab.runs import console, entry_script
from tunelab.runs.entry_script import (
    check_script,
    own_script,
    recorded_sha256,
    script_option,
    script_record,
    train_command,
)
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.executors.forking import ForkedJob, ForkingExecutor
from tunelab.search.trial_process import LocalExecutor

# Patched before the packages are imported, by name and from a module beside the script, as a user would.
SCRIPT = """
import json, os, sys
import beside
with open(os.environ["SEEN"], "a") as log:
    log.write("script\\n")
sys.modules["json"].MARK = beside.MARK
from tunelab.cli.launch import main
if __name__ == "__main__":
    main()
"""
TAKEN = "import json\nprint('taken', getattr(json, 'MARK', 'as it was'))\n"  # takes what was patched as it is imported


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script of one's own in a folder with a module, and a package that is imported for every training."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "beside.py").write_text("MARK = 'patched'\n")
    (tmp_path / "taken.py").write_text(TAKEN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT / "src")]))
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    return folder / "train.py"


def test_the_shipped_script_counts_as_none() -> None:
    assert entry_script.is_template(ROOT / "train.py"), "train.py has changed: so must TEMPLATE_SHA256"


def test_only_the_main_script_of_a_process_counts(script: Path) -> None:
    for caller in (
        {"__name__": "mylab", "__file__": str(script), "__spec__": None},
        {"__name__": "__main__", "__file__": str(script), "__spec__": "python -m"},
        {"__name__": "__main__", "__spec__": None},
        {"__name__": "__main__", "__file__": str(ROOT / "train.py"), "__spec__": None},
        {"__name__": "__main__", "__file__": "<stdin>", "__spec__": None},
    ):
        entry_script.note_script(caller)
        assert own_script() is None and train_command(own_script())[1:] == ["-P", "-m", "tunelab.cli.launch"]
    try:
        entry_script.note_script({"__name__": "__main__", "__file__": str(script), "__spec__": None})
        assert train_command(own_script()) == [sys.executable, str(script)]
    finally:
        entry_script.note_script({})


def test_a_fork_of_a_script_goes_on_from_its_call_of_main(script: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with closing(ForkingExecutor(said.append, ["taken"], script)) as executor:
        for number in (0, 1):
            status = executor.run([*train_command(script), "lr=abc", "lrr=3"], tmp_path / str(number), {})
            log = (tmp_path / str(number) / "trial.log").read_text()
            assert status == 2 and "lrr=3: 'lrr' is no setting" in log and "lr=abc" in log
            assert "taken patched" in log
        job = executor.start([*train_command(script), "--help"], tmp_path / "2", {})
        assert isinstance(job, ForkedJob)

    assert not said
    assert (tmp_path / "seen").read_text() == "script\n"  # once, for all of them


def search_and_marks(script: Path, study: Path, *words: str) -> list[str]:
    """What each training of a search, and of the evaluation of its best, left by a patched function."""
    command = [sys.executable, str(script), "-m", *TINY, "lr=1e-3,1e-2", f"hydra.sweep.dir={study}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "processes of their own" not in done.stdout
    return [json.loads((study / str(trial) / "config_mark.json").read_text()) for trial in (0, 1)]


PATCHING = """
import json
import pathlib
import tunelab.training.lifecycle
import tunelab.runs.run_dir as run_dir

write = run_dir.RunDirectory.write_scores

def write_scores(self, scores):
    (self.root / "config_mark.json").write_text(json.dumps("patched"))
    write(self, {**scores, "val/mine": 0.25})

run_dir.RunDirectory.write_scores = write_scores

from tunelab.cli.launch import main
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("fork", ["true", "false"])
def test_a_changed_train_py_reaches_every_trial(script: Path, tmp_path: Path, fork: str) -> None:
    script.write_text(PATCHING)
    study = tmp_path / "study"

    assert search_and_marks(script, study, f"search.fork={fork}") == ["patched", "patched"]

    assert json.loads((study / "search.json").read_text())["script"] == script_record(script)
    assert all(json.loads((study / str(n) / "metrics.json").read_text())["val/mine"] == 0.25 for n in (0, 1))


def test_confirming_a_search_by_a_script_takes_the_one_that_is_named_and_no_other(script: Path) -> None:
    record = script_record(script)
    assert record is not None and set(record) == {"name", "sha256"}

    check_script(None, None)
    check_script(script, record)
    with pytest.raises(ConfigError, match=r"name the file.*--script train.py"):
        check_script(None, record)
    with pytest.raises(ConfigError, match="no such file"):
        check_script(script.with_name("none.py"), record)


def test_a_script_is_the_recorded_one_by_its_content(script: Path) -> None:
    record, none = script_record(script), recorded_sha256(None)

    assert recorded_sha256(script_record(script.rename(script.with_name("mine.py")))) == recorded_sha256(record)
    assert recorded_sha256(script_record(ROOT / "train.py")) == none != recorded_sha256(record)


@pytest.mark.parametrize("record", [{"name": "../../mine now.py", "sha256": "0"}, {"name": "mine now.py"}])
def test_commands_name_the_script_of_what_they_train_again_by_its_name_alone(record: dict[str, str]) -> None:
    assert console.train_command(record) == "python 'mine now.py'"
    assert script_option(record) == " --script 'mine now.py'"
    assert script_option(None) == ""


@pytest.mark.parametrize("record", [{"name": "mine.py", "sha256": "0"}, None])
def test_the_report_of_a_search_suggests_commands_that_work_with_its_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: dict[str, str] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    train, option = ("python mine.py", " --script mine.py") if record else ("tunelab train", "")
    root = study(tmp_path / "study", 8, script=record)
    StudyFolder(root).best.write_text("")

    commands = [
        block.text
        for section in build_study_report(read_study_results(root)).sections
        for block in section.blocks
        if isinstance(block, Command)
    ]

    assert commands[0] == f"tunelab confirm study{option}"
    assert f"{train} experiment=study/best" in commands
    assert all(one.startswith(train) for one in commands[1:])


@pytest.mark.slow
def test_a_run_by_a_script_is_reproduced_by_the_script_that_is_named(script: Path, tmp_path: Path) -> None:
    script.write_text(PATCHING)
    folder = tmp_path / "run"

    def status_and_output(*words: object) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=300, cwd=ROOT, check=False
        )
        return done.returncode, done.stdout + done.stderr

    assert status_and_output(script, *TINY, f"hydra.run.dir={folder}")[0] == 0
    assert json.loads((folder / "run.json").read_text())["script"] == script_record(script)
    assert f"tunelab reproduce {folder} --script train.py\n" in render_markdown(compose_report([folder]))
    again = ("-c", "from tunelab.cli.main import main; main()", "reproduce", folder, "--output", tmp_path / "again")
    status, output = status_and_output(*again)
    assert status == 2 and "--script train.py" in output

    status, output = status_and_output(*again, "--script", script)

    assert status == 0 and "identical\n" in output, output
    assert json.loads((tmp_path / "again" / "config_mark.json").read_text()) == "patched"
    script.write_text(PATCHING + "\n")
    status, output = status_and_output(*again, "--script", script, "--check")
    assert status == 3 and "script changed: its sha256 was" in output


def test_without_forking_a_script_is_started_for_each_training(script: Path, tmp_path: Path) -> None:
    for number in (0, 1):
        assert LocalExecutor().run([*train_command(script), "--help"], tmp_path / str(number), {}) == 0

    assert (tmp_path / "seen").read_text() == 2 * "script\n"
