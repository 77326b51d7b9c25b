"""One small run of each kind of work, trained once for all tests of the commands that use it."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.tiny_runs import MODEL, QUIET, instructions, labelled, write
from support.trained_runs import training_with
from tunelab.cli.main import main
from tunelab.runs.run_dir import RunDirectory

WHOLE = ["data.split.validation=0.2", "batch_size=8", "max_epochs=2", "lr=3e-3", *QUIET]
Talk = Callable[..., tuple[int, str, str]]
train = training_with(*WHOLE)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs, and of the files they learned from."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def instruction(place: Path) -> RunDirectory:
    """A run that learned to answer; its test file is `instructions.jsonl` itself."""
    file = instructions(place, 40)
    return train(place, "instruction", "data=instruction", f"data.train={file}", f"data.test={file}", *MODEL)


@pytest.fixture(scope="session")
def classification(place: Path) -> RunDirectory:
    """A run that learned one label a text."""
    file = labelled(place)
    given = ["data=classification", f"data.train={file}", f"data.test={file}", "data.text=text", "data.label=label"]
    return train(place, "classification", *given, *MODEL)


@pytest.fixture(scope="session")
def multilabel(place: Path) -> RunDirectory:
    """A run that learned any number of labels a text."""
    rows = [{"text": f"{i} {'hot' * (i % 2)} {'wet' * (i % 3 == 0)}", "labels": wanted(i)} for i in range(60)]
    file = write(place / "several.jsonl", rows)
    given = ["data=classification", f"data.train={file}", f"data.test={file}", "data.text=text", "data.label=labels"]
    return train(place, "multilabel", *given, "data.multilabel=true", *MODEL)


def wanted(i: int) -> list[str]:
    """Labels that a number in a text asks for."""
    return ["hot"] * (i % 2) + ["wet"] * (i % 3 == 0)


@pytest.fixture(scope="session")
def regression(place: Path) -> RunDirectory:
    """A run that learned a number in units far from 0."""
    rows = [json.loads(line) for line in labelled(place).read_text().splitlines()]
    file = write(place / "numbers.jsonl", [{**row, "number": 1000 + 20 * row["number"]} for row in rows])
    given = ["data=regression", f"data.train={file}", f"data.test={file}", "data.text=text", "data.target=number"]
    return train(place, "regression", *given, *MODEL)


@pytest.fixture(scope="session")
def adapted(place: Path) -> RunDirectory:
    """A run with low-rank weights beside the built-in model."""
    file = instructions(place, 40)
    return train(place, "adapted", "data=instruction", f"data.train={file}", f"data.test={file}", "adapter=lora")


@pytest.fixture
def train_in() -> Callable[..., RunDirectory]:
    """Makes another run, for a test that needs its own."""
    return train


@pytest.fixture
def tunelab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Runs a command: exit status, what it printed, what it complained."""

    def ask(*words: Any, says: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(says))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        heard = capsys.readouterr()
        return int(left.value.code or 0), heard.out, heard.err

    return ask
