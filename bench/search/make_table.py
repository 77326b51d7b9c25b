"""Measure the real table that searches are compared on: every configuration of a lattice, with three seeds each.

    OMP_NUM_THREADS=1 nice -n 15 python bench/search/make_table.py    # about half an hour on one core

Each line of `table.csv` is one fine-tuning of the built-in model, cut to one layer, on a little of the built-in data,
done by the code that `python train.py` runs: its settings, its seed, the seconds it took and the validation loss after
each epoch.  A line is written as soon as its run is over, so the same command goes on where it was stopped.  Seeds are
the outer loop: a table cut short holds whole lattices first.
"""

import argparse
import csv
import io
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from table import EPOCHS, NAMES, SEEDS, TABLE, lattice

from tunelab.cli.launch import CONF
from tunelab.config.validate import validate_config
from tunelab.errors import Diverged
from tunelab.training.run import fine_tune

FIXED = [
    f"max_epochs={EPOCHS}",
    "data.limit=64",  # rows to learn from, and as many to validate on: little, so that over-fitting shows
    "model.depth=1",
    "regularization=dropout",
    "callbacks.early_stopping=false",
    "callbacks.throughput=false",
    "data.near_duplicates=null",
    "eval.generate=false",
    "eval.base=false",
    "test=false",
    "save=false",
    "logger=none",
    "trainer.enable_progress_bar=false",
]
LOSSES = [f"loss_{epoch}" for epoch in range(1, EPOCHS + 1)]
COLUMNS = [*NAMES, "seed", "seconds", *LOSSES]
Line = dict[str, str]


def planned_runs() -> Iterator[Line]:
    """Every run as its settings and seed, as text, in an order that tells early how each factor matters."""
    points = [{name: str(point.get(name, "")) for name in NAMES} for point in lattice()]
    random.Random(0).shuffle(points)
    yield from (point | {"seed": str(seed)} for seed in range(SEEDS) for point in points)


def key_of(run: Mapping[str, str]) -> tuple[str, ...]:
    """The key that identifies a run."""
    return tuple(run[name] for name in (*NAMES, "seed"))


def finished_runs(path: Path) -> set[tuple[str, ...]]:
    """The runs that the file holds; a last line without its end is cut off."""
    if not path.exists() or not path.stat().st_size:
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    return {key_of(line) for line in csv.DictReader(io.StringIO(text))}


@cache
def compose_config(optimizer: str) -> DictConfig:
    """The config of `python train.py optimizer=NAME` with all that stays the same."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*FIXED, f"optimizer={optimizer}"])


def measure_run(run: Line, work: Path | None) -> Line:
    """The line of one run; it has fewer losses where the loss became NaN or Inf."""
    began = time.perf_counter()
    config = compose_config(run["optimizer"])  # every setting that varies with this optimizer is set anew below
    for name, value in run.items():
        if name != "optimizer" and value:
            number = float(value)
            OmegaConf.update(config, name, int(number) if name in ("batch_size", "seed") else number)
    with TemporaryDirectory(dir=work) as folder_name:
        folder = Path(folder_name) / "run"
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere), suppress(Diverged):
            fine_tune(validate_config(config), folder)  # where it diverges, its curve up to there is the result
        with (folder / "metrics.csv").open(encoding="utf-8") as file:
            losses = [line["val/loss"] for line in csv.DictReader(file) if line.get("val/loss")]
    seconds = {"seconds": f"{time.perf_counter() - began:.1f}"}
    return run | seconds | {name: f"{float(loss):.4f}" for name, loss in zip(LOSSES, losses, strict=False)}


def main() -> None:
    """Run what the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=TABLE, help="the file to write, and to go on with")
    parser.add_argument("--work", type=Path, default=None, help="folder for run folders, each gone after its run")
    parser.add_argument("--hours", type=float, default=None, help="no run starts after this time")
    arguments = parser.parse_args()
    finished, began = finished_runs(arguments.output), time.monotonic()
    left = [run for run in planned_runs() if key_of(run) not in finished]
    print(f"{len(finished)} runs are there, {len(left)} to go", flush=True)
    for count, run in enumerate(left, 1):
        if arguments.hours is not None and time.monotonic() - began > arguments.hours * 3600:
            break
        line = measure_run(run, arguments.work)
        with arguments.output.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(line)
        if count % 25 == 0:
            print(f"{count} runs in {time.monotonic() - began:.0f} s ({time.process_time():.0f} s of CPU)", flush=True)


if __name__ == "__main__":
    main()
