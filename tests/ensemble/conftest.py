"""Several small runs of each kind of work, trained once."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.tiny_runs import MODEL, QUIET, instructions, labelled
from support.trained_runs import training_with
from tunelab.cli.main import main
from tunelab.runs.run_dir import RunDirectory

Talk = Callable[..., tuple[int, str, str]]
WHOLE = ["batch_size=8", "max_epochs=2", "save=false", *QUIET]
train = training_with(*WHOLE)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs."""
    return tmp_path_factory.mktemp("ensembles")


@pytest.fixture(scope="session")
def sorters(place: Path) -> list[RunDirectory]:
    """Three runs that learned one label a text, of different strength."""
    file = labelled(place, 120)
    given = ["data=classification", f"data.train={file}", "data.text=text", "data.label=label", *MODEL]
    given += ["data.split.validation=0.2", "data.split.test=0.2"]
    return [train(place, f"sorter_{rate}", *given, f"lr={rate}") for rate in ("1e-3", "2e-3", "4e-3")]


@pytest.fixture(scope="session")
def raters(place: Path) -> list[RunDirectory]:
    """Two runs that learned a number a text."""
    file = labelled(place, 120)
    given = ["data=regression", f"data.train={file}", "data.text=text", "data.target=number", *MODEL]
    given += ["data.split.validation=0.2", "data.split.test=0.2"]
    return [train(place, f"rater_{rate}", *given, f"lr={rate}") for rate in ("1e-3", "3e-3")]


@pytest.fixture(scope="session")
def speakers(place: Path) -> list[RunDirectory]:
    """Two LoRA runs that learned to answer, from the built-in model."""
    file = instructions(place, 40)
    given = [
        "data=instruction",
        f"data.train={file}",
        "adapter=lora",
        "data.split.validation=0.2",
        "data.split.test=0.2",
    ]
    return [train(place, f"speaker_{rate}", *given, f"lr={rate}") for rate in ("1e-3", "3e-3")]


@pytest.fixture
def tunelab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Runs a command: exit status, what it printed, what it complained."""

    def ask(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        heard = capsys.readouterr()
        return int(left.value.code or 0), heard.out, heard.err

    return ask
