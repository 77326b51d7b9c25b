"""The page of all benchmarks keeps each part as it comes, and says which failed and under which load."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

SCRIPT = ROOT / "bench" / "run.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """The script, with this interpreter in place of an environment of peers."""
    command = [sys.executable, str(SCRIPT), "--peers-python", sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_part_that_fails_is_named_and_the_page_is_written(tmp_path: Path) -> None:
    page = tmp_path / "results.md"

    done = run("--only", "data", "--rows", "none", "--output", str(page))

    assert done.returncode == 2  # an option that is no number never starts a part
    assert not page.exists()

    done = run("--only", "data", "--rows", "-1", "--output", str(page))

    assert done.returncode == 1
    assert "failed: data" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "## data" in text
    assert "It ended with exit status 1." in text
    assert "`python bench/rows/run.py -1`" in text
    assert sys.executable not in text


def test_a_part_that_does_not_exist_is_refused_by_name() -> None:
    done = run("--only", "speed")

    assert done.returncode == 2
    assert "no part speed: training, start, search, data, generation, devices" in done.stderr
