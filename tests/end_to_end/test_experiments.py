"""Every experiment runs, shortened; none is shipped untried."""

import json
from pathlib import Path

import pytest

from support import warm_processes
from support.paths import ROOT

SHORT = ["max_steps=2", "data.limit=40", "logger=none", "trainer.accelerator=cpu", "trainer.val_check_interval=1.0"]
ORDER = ["starter_readings", "starter_pretrain"]  # the second reads what the first leaves
EFFECTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("effect_*.yaml"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiments")
    for name in ("conf", "src", "train.py"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_every_experiment_is_tried_here() -> None:
    assert sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")) == sorted(ORDER + EFFECTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDER)
def test_an_experiment_runs(name: str, place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = warm_processes.run(["train.py", f"experiment={name}", *SHORT], place)

    assert done.returncode == 0, done.stderr[-2000:]
    assert list((place / "outputs").glob(f"{name}/**/export/model.safetensors"))
    head = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text().splitlines()[:6]
    assert any(f"python train.py experiment={name}" in line for line in head)


@pytest.mark.slow
@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_is_measured_and_drawn(name: str, place: Path, tmp_path: Path) -> None:
    # Given the command in its head, shortened: two trainings of two steps
    short = [override for override in SHORT if "data.limit" not in override or name != "effect_pretrained"]
    typed = ["-m", f"experiment={name}", "search.trials=2", *short, "eval.generate_rows=4", "eval.max_new_tokens=2"]
    done = warm_processes.run(["train.py", *typed, f"hydra.sweep.dir={tmp_path}"], place)

    # Then it ends well, and leaves the drawing
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "effect.svg").read_text().startswith("<svg")
    assert json.loads((tmp_path / "effect.json").read_text())["trials"] == 2
    head = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text().splitlines()[:4]
    assert any(f"python train.py -m experiment={name}" in line for line in head)
