"""docs/extend.md: every block is a file of a package and a conf folder of your own; every command works with it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from support.documented_commands import SHORT, commands_of, furnish
from support.paths import ROOT
from support.tiny_runs import CONF, MODEL
from tunelab.config import plugins
from tunelab.config.schema import DataConfig
from tunelab.config.validate import validate_config

PAGE = ROOT / "docs" / "extend.md"
BLOCKS = {
    first: text
    for first, text in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
}
YAMLS = sorted(Path(name) for name in BLOCKS if name.endswith(".yaml"))
MOST_LINES = 20
LABELS = ["data.train=reviews.csv", "data.text=review", "data.label=stars"]


def write_files(folder: Path) -> None:
    for name, text in BLOCKS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "mylab" / "__init__.py").touch()


def test_every_part_has_an_example_of_at_most_twenty_lines() -> None:
    parts = {path.parts[1] for path in YAMLS} | {Path(name).stem for name in BLOCKS if name.endswith(".py")}
    assert parts >= {
        "optimizer", "scheduler", "regularization", "module", "callbacks", "logger", "metrics", "data", "search",
        "formats", "tasks", "samplers",
    }  # fmt: skip
    assert {name for name, text in BLOCKS.items() if len(text.splitlines()) > MOST_LINES} == set()


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_every_yaml_of_the_page_composes_and_is_legal(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_packages", ["mylab"])
    monkeypatch.setattr(DataConfig, "variants", dict(DataConfig.variants))  # a task of its own adds to them
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        monkeypatch.delitem(sys.modules, name)
    group = path.parts[1]
    data = [] if group != "data" else LABELS
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = [f"hydra.searchpath=[file://{tmp_path / 'labconf'}]", f"{group}={path.stem}", *data]
        run = validate_config(compose("config", overrides=words))

    assert "mylab." in json.dumps(run.as_dict())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = furnish(tmp_path_factory.mktemp("extend"))
    write_files(folder)
    return folder


def start(words: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    """A command of the page, as it stands there or without the words that allow the package."""
    ours = ["-c", "from tunelab.cli.main import main; main()"] if words[0] == "tunelab" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    for name in (plugins.VARIABLE, plugins.FOLDER_VARIABLE):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, *ours, *words[1:]], cwd=place, capture_output=True, text=True, timeout=600, env=environment
    )


@pytest.mark.slow
def test_every_command_of_the_page_works_with_the_package(place: Path) -> None:
    train, predict, evaluate, with_format, search = (shlex.split(command) for command in commands_of(PAGE))
    short = [*MODEL, *(word for word in SHORT if not word.startswith("logger")), "max_steps=6", "save=false"]
    short += ["trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]

    done = start([*train, *short, "hydra.run.dir=run"], place)

    assert done.returncode == 0, done.stderr
    run, scores = place / "run", json.loads((place / "run" / "metrics.json").read_text())
    assert {"test/distance", "test/cohen_kappa", "val/distance"} <= scores.keys()
    assert json.loads((run / "run.json").read_text())["best"]["monitor"] == "val/distance"
    rates = [float(line) for line in (place / "rates.txt").read_text().splitlines()]
    assert rates[2] == rates[0] / 2 and rates[4] == rates[0] / 4
    assert "train/penalty_drift" in (run / "metrics.csv").read_text().splitlines()[0]
    assert (place / "lines.txt").read_text().startswith("lr 0.001\n") and "test/distance" in (
        place / "lines.txt"
    ).read_text()

    assert (done := start([run.name if word == "RUN" else word for word in predict], place)).returncode == 0, (
        done.stderr
    )
    words = ["run" if word == "RUN" else word for word in evaluate]
    done = start([*words, "--output", "scores.json"], place)
    assert done.returncode == 0, done.stderr
    assert "distance" in json.loads((place / "scores.json").read_text())["scores"]
    done = start([word for word in words if not word.startswith("plugins")], place)
    assert done.returncode == 2 and "metrics.distance" in done.stderr and "plugins=[mylab]" in done.stderr

    done = start(["python", "train.py", "resume=run"], place)
    assert done.returncode == 2 and all(f"{name}: _target_ 'mylab." in done.stderr for name in ("optimizer", "module"))

    done = start([*with_format, *short, "max_steps=2", "hydra.run.dir=talk"], place)
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "talk" / "data_report.json").read_text())["format"] == "mylab.formats.shouted"

    few = ["search.trials=2", "search.isolation=inline", "search.test_best=false", "hydra.sweep.dir=study"]
    done = start([*search, *short, *few], place)
    assert done.returncode == 0, done.stderr
    study = json.loads((place / "study" / "study.json").read_text())
    assert (study["sampler"], study["directions"]) == ("mylab.samplers.Doubtful", ["minimize"])
