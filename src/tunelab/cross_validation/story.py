"""The story of a cross-validation: each fold is a training of its own, and the table of them all is the result."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunelab import console
from tunelab.cross_validation.folder import FoldsFolder, refuse_others
from tunelab.cross_validation.spread import Spread, spreads
from tunelab.errors import ConfigError, TuneLabError
from tunelab.json_lines import Row
from tunelab.record import RunFolder
from tunelab.search.jobs import Executor, Job, LocalExecutor
from tunelab.search.outcome import LOG, Outcome, read_outcome
from tunelab.settings import Run

POLL = 0.05  # seconds between two looks at a training


def cross_validate(
    settings: Run,
    root: Path,
    overrides: Sequence[str],
    *,
    beside: Sequence[str] = (),
    executor: Executor | None = None,
) -> float:
    """Train every fold that is not done yet, and leave their scores with mean and spread.

    Args:
        settings: Of every fold; `cv.folds` says how many there are.
        root: The folder of the folds; where it holds some already, they are gone on with.
        overrides: Of the task, as typed.
        beside: Overrides of Hydra's own that every fold needs.
        executor: What starts trainings; None starts a process for each.

    Returns:
        The mean of the monitored score.

    Raises:
        ConfigError: If the settings are at fault, or the folder holds folds of another training.
        TuneLabError: If a fold failed; the same command goes on.
        SystemExit: 143 after SIGTERM, and KeyboardInterrupt passes, once the fold at work is at a safe point.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("cv.folds under torchrun: start it without; each fold starts its own trainer.devices")
    folds, folder = int(settings.cv["folds"]), FoldsFolder(root.absolute())
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.lock.acquire()
    try:
        group = f", each {settings.cv['group']} in one fold" if settings.cv["group"] is not None else ""
        console.say(f"cross-validation: {folds} trainings{group}, one after another, without the test split")
        console.say(f"folder: {folder.root}")
        done = [read_outcome(folder.fold(number).root, 0, ["monitor"]) for number in range(folds)]
        for number in range(folds):
            if folder.fold(number).card.exists() and folder.fold(number).read_card().get("model"):
                refuse_others(folder.fold(number), fold_of(settings, number).plain)
        for number, known in enumerate(done):
            where = folder.fold(number)
            if known.state != "complete":
                console.say(f"fold {number}: training, output in {where.root / LOG}")
                job = start(where, number, overrides, beside, executor or LocalExecutor(), settings)
                done[number] = ended(where, number, wait(job, folder, overrides))
            console.say(f"fold {number}: {monitor_of(where)} {done[number].values[0]:.5g}")
        return conclude(folder, settings, overrides)
    finally:
        folder.lock.release()


def fold_of(settings: Run, number: int) -> Run:
    """The settings of one fold."""
    return replace(settings, cv={**settings.cv, "fold": number})


def start(
    where: RunFolder, number: int, overrides: Sequence[str], beside: Sequence[str], executor: Executor, settings: Run
) -> Job:
    """Start a fold, or go on with one that was cut off."""
    train = [sys.executable, sys.argv[0]]
    place = f"hydra.run.dir='{where.root}'"
    if where.card.exists() and where.read_card().get("model"):  # one that ended before it had one starts anew
        return executor.start([*train, f"resume='{where.root}'", place], where.root, {})
    tracked = []
    if settings.logger.get("kind") == "wandb" and settings.logger.get("group") is None:
        tracked = [f"logger.group='{where.root.parent.name}'", "logger.job_type=fold"]
    own = ["test=false", f"cv.fold={number}", place]
    return executor.start([*train, "save=false", *tracked, *overrides, *beside, *own], where.root, {})


def wait(job: Job, folder: FoldsFolder, overrides: Sequence[str]) -> int:
    """The exit status of a fold.  A signal to us reaches it, and we leave once it is at a safe point."""
    try:
        while (status := job.poll()) is None:
            time.sleep(POLL)
    except (SystemExit, KeyboardInterrupt):
        job.stop()
        while job.poll() is None:
            time.sleep(POLL)
        again = shlex.join(["python", "train.py", *overrides, f"hydra.run.dir={folder.root}"])
        console.say(f"stopped; go on with: {again}")
        raise
    return status


def ended(where: RunFolder, number: int, status: int) -> Outcome:
    """How a fold ended.

    Raises:
        ConfigError: If its settings or its data are at fault.
        TuneLabError: If it failed otherwise.
    """
    outcome = read_outcome(where.root, status, ["monitor"])
    if outcome.state == "complete":
        return outcome
    kind = ConfigError if outcome.kind == "config" else TuneLabError
    raise kind(
        f"fold {number} failed ({outcome.kind}): {outcome.reason}\nWithout it a mean would mislead. Its output is in "
        f"{where.root / LOG}; the same command goes on"
    )


def monitor_of(where: RunFolder) -> str:
    """The score that a fold followed."""
    return str((where.read_card().get("best") or {}).get("monitor"))


def row_of(where: RunFolder, number: int) -> Row:
    """What the table says of a fold beside its scores."""
    card, splits = where.read_card(), where.read_report()["splits"]
    return {
        "fold": number,
        "train_rows": splits["train"]["rows"],
        "validation_rows": splits["validation"]["rows"],
        "best_step": card["best"]["step"],
        "seconds": card["seconds"],
        "status": card["status"],
    }


def conclude(folder: FoldsFolder, settings: Run, overrides: Sequence[str]) -> float:
    """Write the table, and show it."""
    wheres = [folder.fold(number) for number in range(int(settings.cv["folds"]))]
    found = spreads([where.read_scores() for where in wheres])
    monitor, rows = monitor_of(wheres[0]), [row_of(where, number) for number, where in enumerate(wheres)]
    found.setdefault(monitor, Spread(tuple(float(where.read_card()["best"]["value"]) for where in wheres)))
    report = wheres[0].read_report()
    test = int((report["splits"].get("test") or {}).get("rows") or 0)
    untouched = (
        f"test: {test:,} rows that no fold trained on, chose by or scored; a run without cv.folds scores them"
        if test
        else "test: there is none; every row was validated once"
    )
    facts: dict[str, Any] = {
        "folds": len(wheres),
        "group": settings.cv["group"],
        "monitor": monitor,
        "mean": found[monitor].mean,
        "std": found[monitor].std,
        "test_rows": test,
        "test": untouched,
        "overrides": list(overrides),
        "data": wheres[0].read_card()["data"]["files"],
    }
    folder.write(facts, rows, found)
    console.show_folds({name.removeprefix("val/"): table_row(spread) for name, spread in found.items()})
    console.say(f"{monitor} {found[monitor].mean:.4g} ± {found[monitor].std:.2g} (standard deviation of the folds)")
    console.say(untouched)
    console.show_paths({"folder": folder.root, "table": folder.table, "summary": folder.summary})
    return found[monitor].mean


def table_row(spread: Spread) -> dict[str, float]:
    """A line on the terminal: mean and spread, then each fold."""
    return {**spread.told(), **{f"fold {number}": value for number, value in enumerate(spread.values)}}
