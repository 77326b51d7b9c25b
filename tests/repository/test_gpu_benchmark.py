"""The benchmark of a GPU gives both sides the same tokens, and counts the same arithmetic for both."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.paths import ROOT
from tunelab.data.examples import IGNORE, Example

HERE = ROOT / "bench" / "gpu"


def load(name: str) -> ModuleType:
    """A script of the folder as a module."""
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_full_blocks_hold_every_token_once_with_its_label() -> None:
    rows = [Example([*range(n)], [IGNORE, *range(1, n)], n - 1, 0) for n in (5, 3, 9, 4)]

    blocks = list(load("measure").blocks_of(rows, 4))

    ids = [token for block, _, _ in blocks for token in block]
    assert ids == [token for row in rows for token in row.ids][: len(ids)]
    assert (
        [token for _, labels, _ in blocks for token in labels]
        == [
            token
            for row in rows
            for token in row.target  # type: ignore[union-attr]
        ][: len(ids)]
    )
    assert all(len(block) == sum(lengths) == 4 for block, _, lengths in blocks)
    assert len(ids) == 20  # of 21: a block that is not full is left out


def test_the_same_arithmetic_counts_for_both() -> None:
    script = load("run")
    cost = {"per_token": 6.0, "per_pair": 2.0, "per_output": 1.0}
    work = {"tokens": 100, "pairs": 50, "outputs": 30}
    mine = {"shape": "1b", "method": "full", "work": work, "seconds": 1.0, "flops": cost, "peak_gib": 6.0}
    mine["foretold_gib"] = 6.6
    other = mine | {"seconds": 2.0, "peak_gib": 12.0}

    assert script.utilisation(mine, 1460.0) == pytest.approx(730 / 1460)
    assert script.compare(mine, other, 1460.0) == (
        "1b full: 2.00 (bar 1.3) x the Trainer's tokens/s, MFU 0.50 (bar 0.5), 0.50 (bar 0.7) of its memory, "
        "foretold 1.10 of the memory taken"
    )


@pytest.mark.slow
def test_the_whole_benchmark_runs_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the Trainer's LoRA needs peft")
    words = "--device cpu --shapes tiny --block 128 --blocks 2 --steps 3 --skip 1".split()

    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), *words, "--output", str(tmp_path)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert "failed" not in done.stdout
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_cut_run_tells_what_it_did_not_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), "--device", "cpu", "--shapes", "tiny", "--minutes", "0.1",
         "--output", str(tmp_path)], capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 1
    assert "the minutes are over" in done.stdout
