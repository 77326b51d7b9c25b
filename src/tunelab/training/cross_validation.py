"""Cross-validation: one training for each fold, scores with mean and standard deviation over the folds, one folder."""

import csv
import io
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from omegaconf import OmegaConf

from tunelab.config.flatten import flatten
from tunelab.config.quoting import path_word
from tunelab.config.resource_paths import resolve_path
from tunelab.config.schema import RunConfig
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import translate
from tunelab.runs import console
from tunelab.runs.atomic_files import Row, write_json, write_text
from tunelab.runs.entry_script import own_script, train_command
from tunelab.runs.file_digests import sha256_file
from tunelab.runs.launcher import check_started_alone
from tunelab.runs.locks import FolderLock
from tunelab.runs.run_dir import RunDirectory
from tunelab.search.executors import local_executor
from tunelab.search.trial_outcome import TRIAL_LOG, TrialOutcome, read_outcome
from tunelab.search.trial_process import Executor


@dataclass(frozen=True)
class FoldScores:
    """A score over the folds.

    Attributes:
        values: Of each fold; nan where it has no such score.
    """

    values: tuple[float, ...]

    @property
    def present(self) -> list[float]:
        """The values of the folds that have the score."""
        return [value for value in self.values if not math.isnan(value)]

    @property
    def mean(self) -> float:
        """Over the folds that have it; nan where none has."""
        return fmean(self.present) if self.present else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the folds (over n - 1); nan of fewer than two."""
        return stdev(self.present) if len(self.present) > 1 else math.nan

    def summary(self) -> dict[str, float]:
        """Mean and spread by name, in the order of a table."""
        if not self.present:
            return {}
        return {"mean": self.mean, "std": self.std, "min": min(self.present), "max": max(self.present)}


def scores_over_folds(scores: Sequence[Mapping[str, float]], prefix: str = "val/") -> dict[str, FoldScores]:
    """Every score whose name begins with a prefix, over the folds, in order of first appearance.

    Args:
        scores: By flat name, for each fold.
        prefix: Of the split that the folds were validated on.
    """
    names = dict.fromkeys(name for fold in scores for name in fold if name.startswith(prefix))
    return {name: FoldScores(tuple(float(fold.get(name, math.nan)) for fold in scores)) for name in names}


@dataclass(frozen=True)
class CrossValidationFolder:
    """The files of a cross-validation."""

    root: Path

    @property
    def summary(self) -> Path:
        """Mean, spread and the value of each fold for every score, and how the folds came to be."""
        return self.root / "cv.json"

    @property
    def table(self) -> Path:
        """One line for each fold, then mean and standard deviation; CSV."""
        return self.root / "cv.csv"

    @property
    def lock(self) -> FolderLock:
        """Held by the process that starts the folds."""
        return FolderLock(self.root / "cv.lock")

    def fold(self, number: int) -> RunDirectory:
        """The run folder of a fold."""
        return RunDirectory(self.root / f"fold_{number}")

    def write(self, facts: Mapping[str, Any], rows: Sequence[Row], fold_scores: Mapping[str, FoldScores]) -> None:
        """Leave both files.

        Args:
            facts: How the folds came to be.
            rows: Of the table, one for each fold.
            fold_scores: Every score over the folds.
        """
        scores = {name: {**spread.summary(), "folds": list(spread.values)} for name, spread in fold_scores.items()}
        write_json(self.summary, {**facts, "scores": scores, "runs": list(rows)})
        columns = [*rows[0], *fold_scores]
        lines: list[dict[str, Any]] = [
            {**row, **{name: spread.values[place] for name, spread in fold_scores.items()}}
            for place, row in enumerate(rows)
        ]
        lines.append({"fold": "mean", **{name: spread.mean for name, spread in fold_scores.items()}})
        lines.append({"fold": "std", **{name: spread.std for name, spread in fold_scores.items()}})
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        write_text(self.table, text.getvalue())


def check_same_training(folder: RunDirectory, config: Mapping[str, Any]) -> None:
    """Refuse to go on beside a fold that was trained with other settings or on other data.

    Args:
        folder: Of the fold.
        config: Its settings as they are now; places of the run and what it logs may differ.

    Raises:
        ConfigError: Naming the settings and files.
    """
    manifest = folder.read_manifest()
    recorded = validate_config(OmegaConf.create(dict(manifest["config"])), for_training=False)  # in the names of today
    before, now = flatten(recorded.as_dict(), keep_empty=True), flatten(config, keep_empty=True)
    changed = [
        name
        for name in now | before
        if name.split(".")[0] not in UNCOMPARED_BLOCKS
        and before.get(name, setting_value(recorded, name))
        != now.get(name)  # a key that is new since then: its default
    ]
    differences = [
        translate("{name}={now} was {before}", name=name, now=now.get(name), before=before.get(name))
        for name in changed
    ]
    for file, digest in ((manifest.get("data") or {}).get("files") or {}).items():
        place = resolve_path(file)
        if place is not None and place.is_file() and digest and sha256_file(place) != digest:
            differences.append(translate("{file} has changed", file=file))
    if differences:
        raise ConfigError(
            translate(
                "{root} was trained otherwise: {names}. Folds of different trainings have no mean; "
                "give another hydra.run.dir for a new cross-validation",
                root=folder.root,
                names=translate("; ").join(differences[:8]),
            )
        )


def setting_value(settings: RunConfig, name: str) -> object:
    """The value at a dotted name, also of a key that was never written; None where there is none."""
    value: object = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return value


UNCOMPARED_BLOCKS = ("logger", "callbacks", "eval", "test", "save", "resume", "name", "lang", "trial", "search")


def cross_validate(
    settings: RunConfig,
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
        executor: What starts trainings; None forks them where `search.fork` and safety let it, else starts processes.

    Returns:
        The mean of the monitored score.

    Raises:
        ConfigError: If the settings are at fault, or the folder holds folds of another training.
        TuneLabError: If a fold failed; the same command goes on.
        SystemExit: 143 after SIGTERM, and KeyboardInterrupt passes, once the fold at work is at a safe point.
    """
    check_started_alone("cv.folds")
    folds, folder = fold_count(settings), CrossValidationFolder(root.absolute())
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.lock.acquire()
    starter = executor or local_executor(console.say, own_script(), fork=settings.search.fork)
    try:
        column = settings.cv.group or settings.data.group
        group = translate(", each {column} in one fold", column=column) if column is not None else ""
        console.say(
            translate(
                "cross-validation: {folds} [training|trainings]{group}, one after another, without the test split",
                folds=folds,
                group=group,
            )
        )
        console.say(translate("folder: {root}", root=folder.root))
        done = [read_outcome(folder.fold(number).root, 0, ["monitor"]) for number in range(folds)]
        for number in range(folds):
            if folder.fold(number).manifest.exists() and folder.fold(number).read_manifest().get("model"):
                check_same_training(folder.fold(number), fold_settings(settings, number).as_dict())
        for number, known in enumerate(done):
            where = folder.fold(number)
            if known.state != "complete":
                console.say(
                    translate("fold {number}: training, output in {root}", number=number, root=where.root / TRIAL_LOG)
                )
                command = fold_command(where, number, overrides, beside, settings)
                status = run_fold(starter, command, where, folder, [*beside, *overrides])
                done[number] = finished_outcome(where, number, status)
            console.say(
                translate(
                    "fold {number}: {where} {values:.5g}",
                    number=number,
                    where=monitored_score(where),
                    values=done[number].values[0],
                )
            )
        return write_summary(folder, settings, overrides)
    finally:
        starter.close()
        folder.lock.release()


def fold_count(settings: RunConfig) -> int:
    """Number of trainings of the cross-validation."""
    assert settings.cv.folds is not None  # else this is an ordinary run
    return settings.cv.folds


def fold_settings(settings: RunConfig, number: int) -> RunConfig:
    """The settings of one fold."""
    return replace(settings, cv=replace(settings.cv, fold=number))


def fold_command(
    where: RunDirectory, number: int, overrides: Sequence[str], beside: Sequence[str], settings: RunConfig
) -> list[str]:
    """The command that starts a fold, or goes on with one that was cut off."""
    train = train_command(own_script())
    place = path_word("hydra.run.dir", where.root)
    if where.manifest.exists() and where.read_manifest().get("model"):  # one that ended before it had one starts anew
        return [*train, path_word("resume", where.root), place]
    tracked = []
    wandb = "wandb" in settings.logger.chosen_kinds()
    if wandb and settings.logger.group is None and not os.environ.get("WANDB_RUN_GROUP"):
        tracked = [path_word("logger.group", where.root.parent.name)]
        tracked += [] if settings.logger.job_type or os.environ.get("WANDB_JOB_TYPE") else ["logger.job_type=fold"]
    own = ["test=false", f"cv.fold={number}", place]
    return [*train, "save=false", *tracked, *overrides, *beside, *own]


def run_fold(
    executor: Executor,
    command: Sequence[str],
    where: RunDirectory,
    folder: CrossValidationFolder,
    overrides: Sequence[str],
) -> int:
    """The exit status of a fold.  A signal to us reaches it, and we leave once it is at a safe point."""
    try:
        status = executor.run(command, where.root, {})
    except (SystemExit, KeyboardInterrupt):
        again = shlex.join([*overrides, path_word("hydra.run.dir", folder.root)])
        console.show_command(translate("stopped; continue with"), f"{console.train_command()} {again}")
        raise
    return status


def finished_outcome(where: RunDirectory, number: int, status: int) -> TrialOutcome:
    """The outcome of a fold that has ended.

    Raises:
        ConfigError: If its settings or its data are at fault.
        TuneLabError: If it failed otherwise.
    """
    outcome = read_outcome(where.root, status, ["monitor"])
    if outcome.state == "complete":
        return outcome
    kind = ConfigError if outcome.failure_kind == "config" else TuneLabError
    raise kind(
        translate(
            "fold {number} failed ({failure_kind}): {reason}\nWithout it a mean would mislead. "
            "Its output is in {root}; the same command goes on",
            number=number,
            failure_kind=outcome.failure_kind,
            reason=outcome.reason,
            root=where.root / TRIAL_LOG,
        )
    )


def monitored_score(where: RunDirectory) -> str:
    """The score that a fold followed."""
    return str((where.read_manifest().get("best") or {}).get("monitor"))


def fold_row(where: RunDirectory, number: int) -> Row:
    """The row of a fold in the table, without its scores."""
    manifest, splits = where.read_manifest(), where.read_data_report()["splits"]
    return {
        "fold": number,
        "train_rows": splits["train"]["rows"],
        "validation_rows": splits["validation"]["rows"],
        "best_step": manifest["best"]["step"],
        "seconds": manifest["seconds"],
        "status": manifest["status"],
    }


def write_summary(folder: CrossValidationFolder, settings: RunConfig, overrides: Sequence[str]) -> float:
    """Write the table, and show it."""
    wheres = [folder.fold(number) for number in range(fold_count(settings))]
    fold_scores = scores_over_folds([where.read_scores() for where in wheres])
    monitor, rows = monitored_score(wheres[0]), [fold_row(where, number) for number, where in enumerate(wheres)]
    best_values = tuple(float(where.read_manifest()["best"]["value"]) for where in wheres)
    monitored = fold_scores.setdefault(monitor, FoldScores(best_values))
    report = wheres[0].read_data_report()
    test = int((report["splits"].get("test") or {}).get("rows") or 0)
    untouched = (
        translate(
            "test: {test:,} [row|rows] that no fold trained on, chose by or scored; a run without cv.folds scores them",
            test=test,
        )
        if test
        else translate("test: there is none; every row was validated once")
    )
    facts: dict[str, Any] = {
        "folds": len(wheres),
        "group": settings.cv.group or settings.data.group,
        "monitor": monitor,
        "mean": monitored.mean,
        "std": monitored.std,
        "test_rows": test,
        "test": untouched,
        "overrides": list(overrides),
        "data": wheres[0].read_manifest()["data"]["files"],
    }
    folder.write(facts, rows, fold_scores)
    console.show_folds({name.removeprefix("val/"): score_row(spread) for name, spread in fold_scores.items()})
    console.say(
        translate(
            "{monitor} {mean:.4g} ± {std:.2g} (standard deviation of the folds)",
            monitor=monitor,
            mean=monitored.mean,
            std=monitored.std,
        )
    )
    console.say(untouched)
    console.show_paths({"folder": folder.root, "table": folder.table, "summary": folder.summary})
    return monitored.mean


def score_row(spread: FoldScores) -> dict[str, float]:
    """A line on the terminal: mean and spread, then each fold."""
    return {**spread.summary(), **{f"fold {number}": value for number, value in enumerate(spread.values)}}
