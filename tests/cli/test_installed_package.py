"""What a wheel holds is enough: the commands work in any folder, without the clone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.paths import ROOT
from tunelab import __version__


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a wheel, unpacked as an install does."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run_installed(installed: Path, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What `tunelab WORDS` prints in a folder, as the console script runs it."""
    script = "from tunelab.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", "-c", script, *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)


def test_a_wheel_holds_every_file_of_conf(installed: Path) -> None:
    expected = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}

    assert {path.relative_to(installed / "tunelab/conf") for path in installed.rglob("conf/**/*.yaml")} == expected


def test_an_installed_package_says_its_version_and_its_help_in_any_folder(installed: Path, tmp_path: Path) -> None:
    assert run_installed(installed, tmp_path, "--version").stdout == f"tunelab {__version__}\n"
    page = run_installed(installed, tmp_path, "train", "--help", "optimizer=sgd")
    assert page.returncode == 0, page.stderr
    assert "optimizer" in page.stdout
    wrong = run_installed(installed, tmp_path, "train", "optimzer=sgd")
    assert (wrong.returncode, "did you mean 'optimizer'" in wrong.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_current_folder_replaces_no_module_of_a_training(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "tunelab.py").write_text("raise SystemExit('replaced')")
    (tmp_path / "hydra.py").write_text("raise SystemExit('replaced')")

    page = run_installed(installed, tmp_path, "train", "--help")

    assert page.returncode == 0, page.stderr


@pytest.mark.slow
def test_an_installed_package_trains_and_searches_in_any_folder(installed: Path, tmp_path: Path) -> None:
    quick = ["logger=none", "max_steps=2", "eval.base=false", "eval.test_rows=4", "eval.generate_rows=4"]

    one = run_installed(installed, tmp_path, "train", *quick, f"hydra.run.dir={tmp_path / 'run'}")
    assert one.returncode == 0, one.stderr
    assert (tmp_path / "run/export/model.safetensors").is_file()
    space = ["-m", "search=random", "search.trials=2", "lr=interval(1e-4,1e-3)"]
    place = f"hydra.sweep.dir={tmp_path / 'study'}"
    study = run_installed(installed, tmp_path, "train", *quick, *space, place)
    assert study.returncode == 0, study.stderr
    report = run_installed(installed, tmp_path, "report", str(tmp_path / "study"))
    assert (report.returncode, (tmp_path / "study/report/report.html").is_file()) == (0, True)
