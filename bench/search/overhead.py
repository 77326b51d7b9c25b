"""The cost of the engine itself: seconds of a trial that are not the training's.

    python bench/search/overhead.py                # the median of 5 searches of 40 trials each

A trial here does nothing but write the files of a finished run.  `process` subtracts the time of the same command
started by hand; `inline` composes the real configuration, as every training does, and that is measured apart.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from no_training import write_finished_run

from tunelab.cli.compose_config import compose_settings
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.engine import Engine
from tunelab.search.executors.inline import InlineExecutor
from tunelab.search.heartbeat import Heartbeat
from tunelab.search.samplers import make_samplers
from tunelab.search.search_config import parse_search_config
from tunelab.search.space import build_space
from tunelab.search.study_results import write_results
from tunelab.search.study_storage import STUDY_NAME, TrialStore, open_storage, open_study
from tunelab.search.suggest import SamplerProposer
from tunelab.search.trial_process import Executor, LocalExecutor
from tunelab.search.worker_pool import WorkerPool

SPACE = build_space({"lr": "tag(log,interval(1e-5,1e-2))", "regularization.dropout": "interval(0.0,0.5)"}, {}, {})
COMPOSING: list[tuple[float, float]] = []  # seconds of each inline trial, by the clock and of the processor
FIXED = ["save=false", "test=false"]
SETTINGS = {
    **dict.fromkeys(("hours", "storage", "trial_timeout", "retry", "objectives", "constraints", "warm_start", "keep")),
    **dict.fromkeys(("sampler_options", "pruner_options", "executor_options")),
    **{"sampler": "tpe", "pruner": "none", "parallel_trials": 1, "devices_per_trial": 1, "isolation": "process"},
    **{"executor": "local", "default_trial": False, "seed": 0, "test_best": False},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40, help="trials of each search")
    parser.add_argument("--rounds", type=int, default=5, help="searches of each kind, of which the median is printed")
    arguments = parser.parse_args()
    compose_settings(FIXED)  # what is imported once is not the trial's
    timings: dict[str, list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        for what, spent in measure(arguments.trials).items():
            timings.setdefault(what, []).append(spent)
    print(f"load of this machine in the last five minutes: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    for what, rounds in timings.items():
        print_row(what, *zip(*rounds, strict=True))


def measure(trials: int) -> dict[str, tuple[float, float]]:
    """Seconds of one trial by what they were spent on, by the clock and of the processor in this process."""
    command = [sys.executable, str(Path(__file__).with_name("no_training.py"))]
    with tempfile.TemporaryDirectory() as place:
        alone, _ = time_commands(command, Path(place) / "alone", trials)
        whole, work = time_search(Path(place) / "process", LocalExecutor(), command, trials)
        seconds = {"process": (whole - alone, work)}
        COMPOSING.clear()
        whole, work = time_search(Path(place) / "inline", InlineExecutor(train), command, trials)
        wall, busy = (sum(spent) / trials for spent in zip(*COMPOSING, strict=True))
        composing = {"composing the settings of an inline trial": (wall, busy)}
        return seconds | {"inline": (whole - wall, work - busy)} | composing


def print_row(what: str, wall: Sequence[float], busy: Sequence[float]) -> None:
    """Print seconds of one trial: the median over the rounds, and the ends by the clock."""
    ends = f"({min(wall):.3f} to {max(wall):.3f})"
    print(f"{what}: {median(wall):.3f} s a trial by the clock {ends}, {median(busy):.3f} s of the processor")


def time_search(root: Path, executor: Executor, command: Sequence[str], trials: int) -> tuple[float, float]:
    """Seconds of one trial in a search, by the clock and of the processor."""
    folder, plan = StudyFolder(root), parse_search_config({**SETTINGS, "trials": trials})
    root.mkdir(parents=True)
    storage, _ = open_storage(None, folder)
    samplers = make_samplers("tpe", SPACE, seed=0, trials=trials, options={})
    study = open_study(storage, STUDY_NAME, ["min"], samplers.initial, None)
    pool = WorkerPool(folder, command, executor, [{}], f"bench:{os.getpid()}", TrialStore(study, storage))
    proposer = SamplerProposer(study, SPACE, samplers)
    engine = Engine(pool, proposer, plan, ["monitor"], FIXED, on_change=result_writer(folder))
    began, busy = time.perf_counter(), time.process_time()
    with Heartbeat(folder.heartbeats):
        assert engine.run()
    return (time.perf_counter() - began) / trials, (time.process_time() - busy) / trials


def result_writer(folder: StudyFolder) -> Callable[[Engine], None]:
    """A function that writes what a search writes whenever a trial begins or ends."""

    def write(engine: Engine) -> None:
        study = engine.pool.store.study
        facts = {"objectives": ["val/loss"], "best_config": lambda trial: "", "facts": {}}
        write_results(folder, engine.trials(), study.directions, **facts)  # type: ignore[arg-type]

    return write


def time_commands(command: Sequence[str], root: Path, trials: int) -> tuple[float, float]:
    """The same of a trial's command started without an engine."""
    began, busy = time.perf_counter(), time.process_time()
    for number in range(trials):
        words = [*command, "lr=1e-3", f"hydra.run.dir={root / str(number)}"]
        subprocess.run(words, check=True, start_new_session=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - began) / trials, (time.process_time() - busy) / trials


def train(overrides: Sequence[str], folder: Path) -> None:
    """A training in this process that is all composing."""
    began, busy = time.perf_counter(), time.process_time()
    settings = compose_settings(overrides)
    COMPOSING.append((time.perf_counter() - began, time.process_time() - busy))
    write_finished_run(folder, float(settings.lr))


if __name__ == "__main__":
    main()
