"""The members of an ensemble: which runs, their models and splits, and whether they fit together."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelab.config.stored_files import STUDY_FILE_ADVICE, shape_faults_explained
from tunelab.data.data_sources import DataSplits, Split, read_splits
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import read_json_lines
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.study_folder import StudyFolder
from tunelab.training.load_run import TrainedRun, find_run, load_run

SNAPSHOT_PATTERN = "snapshot_*.ckpt"


@dataclass(frozen=True)
class MemberSource:
    """The location of a member.

    Attributes:
        folder: The run.
        checkpoint: A checkpoint of it that is not its best one; None for the best.
    """

    folder: RunDirectory
    checkpoint: Path | None = None

    @property
    def name(self) -> str:
        """The name of the member in tables."""
        return str(self.folder.root) if self.checkpoint is None else f"{self.folder.root}:{self.checkpoint.stem}"

    def load(self) -> TrainedRun:
        """The model, ready to be used."""
        return load_run(self.folder.root, self.checkpoint)


def best_checkpoints(runs: Sequence[str]) -> list[MemberSource]:
    """The best model of each run.

    Raises:
        ConfigError: If one is no run, or is named twice.
    """
    folders = [find_run(run) for run in runs]
    roots = [folder.root.resolve() for folder in folders]
    if len(set(roots)) < len(roots):
        raise ConfigError(translate("a run is named twice; an ensemble of a model with itself is that model"))
    return [MemberSource(folder) for folder in folders]


def snapshot_checkpoints(runs: Sequence[str]) -> list[MemberSource]:
    """Every kept snapshot of each run.

    Raises:
        ConfigError: If a run kept none.
    """
    members = []
    for run in runs:
        folder = find_run(run)
        kept = sorted(folder.checkpoints.glob(SNAPSHOT_PATTERN))
        if not kept:
            raise ConfigError(
                translate(
                    "{run} kept no snapshots; train with scheduler=cosine_restarts "
                    "callbacks.snapshots=3, which keeps the weights at the end of each cycle",
                    run=run,
                )
            )
        members += [MemberSource(folder, file) for file in kept]
    return members


def best_study_runs(study: Path, most: int | None) -> list[str]:
    """Run folders of the finished trials of a study that still have a checkpoint, best first.

    Raises:
        ConfigError: If it is no study, or fewer than two are left.
    """
    try:
        folder = StudyFolder(study)
        request = folder.read_study_config()
        lines = read_json_lines(folder.trials)
    except (OSError, ValueError) as fault:
        raise ConfigError(
            translate(
                "--from={study} is no study ({fault}); give the study folder that a search printed",
                study=study,
                fault=fault,
            )
        ) from fault
    with shape_faults_explained(translate("{study}: its search.json or trials.jsonl", study=study), STUDY_FILE_ADVICE):
        sign = 1 if request["modes"][0] == "min" else -1
        whole = [line for line in lines if line["state"] == "complete"]
        whole.sort(key=lambda line: sign * line["values"][0])
        kept = [str(folder.trial_folder(int(line["number"]))) for line in whole]
    kept = [path for path in kept if RunDirectory(Path(path)).best.is_file()]
    if len(kept) < 2:
        raise ConfigError(
            translate(
                "--from={study}: of {count} finished [trial|trials] {kept} kept a checkpoint, and two are "
                "needed; search with search.keep=null, or with a larger number",
                study=study,
                count=len(whole),
                kept=len(kept),
            )
        )
    return kept[:most]


def load_members(members: Sequence[MemberSource]) -> tuple[list[TrainedRun], DataSplits]:
    """All models at once, and their splits.

    Raises:
        ConfigError, DataError: If they do not belong together.
    """
    loaded, names = [member.load() for member in members], [member.name for member in members]
    check_same_task(loaded, names)
    first, splits = loaded[0].settings, read_run_splits(loaded[0])
    for other, name in zip(loaded[1:], names[1:], strict=True):
        if other.settings.data != first.data or other.settings.seed != first.seed:
            check_same_rows(splits, read_run_splits(other), (names[0], name))
    return loaded, splits


def check_same_task(members: Sequence[TrainedRun], names: Sequence[str]) -> None:
    """Refuse models of different tasks, classes or targets.

    Raises:
        ConfigError: Naming every one that differs from the first.
    """
    first, faults = members[0], list[str]()
    for other, name in zip(members[1:], names[1:], strict=True):
        if other.task.name != first.task.name:
            faults.append(
                translate(
                    "{name} was trained for data.task={task}, {names} for {first_task}",
                    name=name,
                    task=other.task.name,
                    names=names[0],
                    first_task=first.task.name,
                )
            )
        elif output_names(other) != output_names(first):
            faults.append(
                translate(
                    "{name} knows {other}, {names} knows {first}",
                    name=name,
                    other=output_names(other),
                    names=names[0],
                    first=output_names(first),
                )
            )
    if faults:
        raise ConfigError.listing(faults)


def output_names(trained: TrainedRun) -> list[str]:
    """The classes or targets of a model's outputs; empty for text."""
    return [str(name) for name in getattr(trained.task, "labels", None) or getattr(trained.task, "targets", [])]


def read_run_splits(trained: TrainedRun) -> DataSplits:
    """The splits of a run, read again.

    Raises:
        DataError: If a file has changed since, or there is no validation or no test split.
    """
    sources = read_splits(trained.settings.data, trained.task, seed=trained.settings.seed)
    with shape_faults_explained(trained.folder.manifest):
        known = dict(trained.folder.read_manifest()["data"]["files"])
    root, faults = trained.folder.root, list[str]()
    faults += [
        translate("{root}: {name} has changed since training, so its rows may be others", root=root, name=name)
        for name, digest in sources.file_hashes.items()
        if known.get(name, digest) != digest
    ]
    faults += [
        translate("{root} has no {name} split, and an ensemble is {what} on it", root=root, name=name, what=what)
        for name, what in (("validation", "fitted"), ("test", "evaluated"))
        if not sources.splits[name].rows
    ]
    if faults:
        raise DataError.listing(faults)
    return sources


def split_fingerprint(split: Split) -> str:
    """A hash of the rows of a split and their order."""
    whole = hashlib.sha256()
    for row in split.rows:
        whole.update(json.dumps(dict(row), sort_keys=True, default=str).encode() + b"\n")
    return whole.hexdigest()


def check_same_rows(first: DataSplits, other: DataSplits, names: tuple[str, str]) -> None:
    """Refuse runs with different validation or test rows: one would be evaluated on what another was trained on.

    Raises:
        ConfigError: Saying which split differs.
    """
    differing = [
        name
        for name in ("validation", "test")
        if split_fingerprint(first.splits[name]) != split_fingerprint(other.splits[name])
    ]
    if differing:
        raise ConfigError(
            translate(
                "{names} and {other} have other {splits} rows, so one may have learned what the "
                "other is evaluated by; train them with the same data.validation and data.test "
                "files, or the same seed",
                names=names[0],
                other=names[1],
                splits=translate(" and ").join(differing),
            )
        )
