"""What the engine itself costs: seconds of a trial that are not the training's.

    python bench/search/overhead.py --trials 40

A trial here does nothing but write the files of a finished run.  `process` subtracts the time of the same command
started by hand; `inline` composes the real configuration, as `search.isolation=inline` does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tunelab.commands.compose import settings_of
from tunelab.search.crew import Crew
from tunelab.search.engine import Engine
from tunelab.search.executors.inline import InlineExecutor
from tunelab.search.jobs import Executor, LocalExecutor
from tunelab.search.ledger import write_ledger
from tunelab.search.notes import Notes
from tunelab.search.owner import Heart
from tunelab.search.plan import plan_of
from tunelab.search.proposals import Proposals
from tunelab.search.samplers import make_samplers
from tunelab.search.space import build_space
from tunelab.search.study import NAME, StudyFolder, open_storage, open_study

SPACE = build_space({"lr": "tag(log,interval(1e-5,1e-2))", "regularization.dropout": "interval(0.0,0.5)"}, {}, {})
FIXED = ["save=false", "test=false"]
SETTINGS = {
    **dict.fromkeys(("hours", "storage", "trial_timeout", "retry", "objectives", "constraints", "warm_start", "keep")),
    **dict.fromkeys(("sampler_options", "pruner_options", "executor_options")),
    **{"sampler": "tpe", "pruner": "none", "slots": 1, "devices_per_trial": 1, "isolation": "process"},
    **{"executor": "local", "default_trial": False, "seed": 0, "judge": False},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)  # this file is its own trial
    arguments = parser.parse_args()
    if arguments.run is not None:
        given = dict(word.split("=", 1) for word in arguments.run)
        leave(Path(given["hydra.run.dir"]), float(given["lr"]))
        return
    command = [sys.executable, __file__, "--run"]
    settings_of(FIXED)  # what is imported once is not the trial's
    for name, executor in (("process", LocalExecutor()), ("inline", InlineExecutor(train))):
        with tempfile.TemporaryDirectory() as place:
            alone = by_hand(command, Path(place) / "alone", arguments.trials) if name == "process" else 0.0
            whole = searched(Path(place) / "study", executor, command, arguments.trials)
        print(f"{name}: {whole - alone:.3f} s a trial beside the training, over {arguments.trials} trials")


def searched(root: Path, executor: Executor, command: Sequence[str], trials: int) -> float:
    """Seconds of one trial in a search."""
    folder, plan = StudyFolder(root), plan_of({**SETTINGS, "trials": trials})
    root.mkdir(parents=True)
    storage, _ = open_storage(None, folder)
    samplers = make_samplers("tpe", SPACE, seed=0, trials=trials, options={})
    study = open_study(storage, NAME, ["min"], samplers.direct, None)
    crew = Crew(folder, command, executor, [{}], f"bench:{os.getpid()}", Notes(study, storage))
    engine = Engine(crew, Proposals(study, SPACE, samplers), plan, ["monitor"], FIXED, changed=ledger(folder))
    began = time.perf_counter()
    with Heart(folder.engines):
        assert engine.run()
    return (time.perf_counter() - began) / trials


def ledger(folder: StudyFolder) -> Callable[[Engine], None]:
    """What a search writes whenever a trial begins or ends."""

    def write(engine: Engine) -> None:
        study = engine.crew.notes.study
        facts = {"objectives": ["val/loss"], "winner": lambda trial: "", "more": {}}
        write_ledger(folder, engine.trials(), study.directions, **facts)  # type: ignore[arg-type]

    return write


def by_hand(command: Sequence[str], root: Path, trials: int) -> float:
    """Seconds of one trial's command started without an engine."""
    began = time.perf_counter()
    for number in range(trials):
        words = [*command, "lr=1e-3", f"hydra.run.dir={root / str(number)}"]
        subprocess.run(words, check=True, start_new_session=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - began) / trials


def train(overrides: Sequence[str], folder: Path) -> None:
    """A training in this process that is all composing."""
    leave(folder, float(settings_of(overrides).plain["lr"]))


def leave(folder: Path, lr: float) -> None:
    """The files of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    value = (lr - 3e-3) ** 2
    (folder / "metrics.json").write_text(json.dumps({"val/loss": value}))
    (folder / "run.json").write_text(json.dumps({"status": "finished", "seconds": 0.0, "best": {"value": value}}))


if __name__ == "__main__":
    main()
