"""`tunelab init DIR`: a project that trains, and whose own test passes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from tunelab.cli.main import run_command


def test_a_new_project_has_all_it_needs_and_names_its_package(tmp_path: Path) -> None:
    assert run_command(["init", str(tmp_path / "My-Lab")]) == 0

    files = {path.relative_to(tmp_path / "My-Lab").as_posix() for path in (tmp_path / "My-Lab").rglob("*.*")}
    assert files >= {
        "pyproject.toml", "README.md", ".gitignore", "conf/experiment/first.yaml", "conf/callbacks/stopwatch.yaml",
        "conf/metrics/far_misses.yaml", "my_lab/callbacks.py", "my_lab/metrics.py", "tests/test_project.py",
        "data/reviews.csv",
    }  # fmt: skip
    assert (tmp_path / "My-Lab" / "Makefile").is_file()
    texts = [path.read_text() for path in (tmp_path / "My-Lab").rglob("*") if path.is_file()]
    assert not any("PACKAGE" in text for text in texts)


def test_nothing_that_is_there_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "README.md").write_text("mine")

    for words, reason in ((["lab"], "is not empty"), (["new", "--package", "my lab"], "can be no package's name")):
        with pytest.raises(SystemExit) as end:
            run_command(["init", str(tmp_path / words[0]), *words[1:]])
        assert end.value.code == 2
        assert reason in capsys.readouterr().err
    assert (tmp_path / "lab" / "README.md").read_text() == "mine"
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_test_of_a_new_project_passes_and_its_commands_work(tmp_path: Path) -> None:
    assert run_command(["init", str(tmp_path / "lab")]) == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PY": sys.executable}

    for words in (["test"], ["train", "ARGS=max_steps=3"], ["search", "ARGS=search.trials=2 max_steps=2"]):
        done = subprocess.run(["make", *words], cwd=tmp_path / "lab", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "lab").glob("outputs/first/*/metrics.json"))
    assert list((tmp_path / "lab").glob("outputs/first/sweep_*/best.yaml"))
