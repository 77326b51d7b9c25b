"""The members of an ensemble: which runs, whether they fit together, and the outputs of each on a split."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunelab.data.data_sources import DataSplits, Split, encode_split, read_splits
from tunelab.data.examples import Example, MicroBatch
from tunelab.errors import ConfigError, DataError
from tunelab.models.soft_prompt import prepend_soft_prompt, soft_prompt_ids
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.runs.atomic_files import read_json_lines
from tunelab.runs.run_dir import RunDirectory
from tunelab.search.study_folder import StudyFolder
from tunelab.training.components import RunComponents, build_datamodule
from tunelab.training.load_run import TrainedRun, find_run, load_run

SNAPSHOT_PATTERN = "snapshot_*.ckpt"


@dataclass(frozen=True)
class MemberSource:
    """Where a member lies.

    Attributes:
        folder: The run.
        checkpoint: A checkpoint of it that is not its best one; None for the best.
    """

    folder: RunDirectory
    checkpoint: Path | None = None

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return str(self.folder.root) if self.checkpoint is None else f"{self.folder.root}:{self.checkpoint.stem}"

    def restore(self) -> TrainedRun:
        """The model, ready to be used."""
        return load_run(self.folder.root, self.checkpoint)


def best_checkpoints(runs: Sequence[str]) -> list[MemberSource]:
    """The best model of each run.

    Raises:
        ConfigError: If one is no run, or is named twice.
    """
    found = [find_run(run) for run in runs]
    roots = [folder.root.resolve() for folder in found]
    if len(set(roots)) < len(roots):
        raise ConfigError("a run is named twice; an ensemble of a model with itself is that model")
    return [MemberSource(folder) for folder in found]


def snapshot_checkpoints(runs: Sequence[str]) -> list[MemberSource]:
    """Every kept snapshot of each run.

    Raises:
        ConfigError: If a run kept none.
    """
    found = []
    for run in runs:
        folder = find_run(run)
        kept = sorted(folder.checkpoints.glob(SNAPSHOT_PATTERN))
        if not kept:
            raise ConfigError(
                f"{run} kept no snapshots; train with scheduler=cosine_restarts callbacks.snapshots=3, which keeps the "
                "weights at the end of each cycle"
            )
        found += [MemberSource(folder, file) for file in kept]
    return found


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
            f"--from={study} is no study ({fault}); give the study folder that a search printed"
        ) from fault
    sign = 1 if request["modes"][0] == "min" else -1
    whole = sorted((line for line in lines if line["state"] == "complete"), key=lambda line: sign * line["values"][0])
    kept = [str(folder.trial_folder(line["number"])) for line in whole]
    kept = [place for place in kept if RunDirectory(Path(place)).best.is_file()]
    if len(kept) < 2:
        raise ConfigError(
            f"--from={study}: of {len(whole)} finished trials {len(kept)} kept a checkpoint, and two are needed; "
            "search with search.keep=null, or with a larger number"
        )
    return kept[:most]


def check_same_task(members: Sequence[TrainedRun], names: Sequence[str]) -> None:
    """Refuse models that do not speak of the same things.

    Raises:
        ConfigError: Naming every one that differs from the first.
    """
    first, faults = members[0], list[str]()
    for other, name in zip(members[1:], names[1:], strict=True):
        if other.task.name != first.task.name:
            faults.append(f"{name} was trained for data.task={other.task.name}, {names[0]} for {first.task.name}")
        elif output_names(other) != output_names(first):
            faults.append(f"{name} knows {output_names(other)}, {names[0]} knows {output_names(first)}")
    if faults:
        raise ConfigError.listing(faults)


def output_names(trained: TrainedRun) -> list[str]:
    """What the outputs of a model stand for: classes or targets; nothing for text."""
    return [str(name) for name in getattr(trained.task, "labels", None) or getattr(trained.task, "targets", [])]


def read_run_splits(trained: TrainedRun) -> DataSplits:
    """The splits of a run, read again.

    Raises:
        DataError: If a file has changed since, or there is no validation or no test split.
    """
    sources = read_splits(trained.settings.data, trained.task, seed=trained.settings.seed)
    known = trained.folder.read_manifest()["data"]["files"]
    root, faults = trained.folder.root, list[str]()
    faults += [
        f"{root}: {name} has changed since training, so its rows may be others"
        for name, digest in sources.file_hashes.items()
        if known.get(name, digest) != digest
    ]
    faults += [
        f"{root} has no {name} split, and an ensemble is {what} on it"
        for name, what in (("validation", "fitted"), ("test", "judged"))
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
    """Refuse runs with different validation or test rows: one would be judged on what another was trained on.

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
            f"{names[0]} and {names[1]} have other {' and '.join(differing)} rows, so one may have learned what "
            "the other is judged by; train them with the same data.validation and data.test files, or the same seed"
        )


FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ModelOutputs:
    """Of one model and one split.

    Attributes:
        logits: (N, C) float64, as the task gives them.
        targets: (N,) class indices, or (N, C) numbers.
        rows: (N,) index of each record within its split, rising.
    """

    logits: FloatArray
    targets: Tensor
    rows: Tensor


def encode_examples(trained: TrainedRun, split: Split) -> Sequence[Example]:
    """The examples of a split as a model reads them."""
    found, _ = encode_split(split, trained.task)
    return prepend_soft_prompt(list(found), soft_prompt_ids(trained.model))


def test_micro_batches(trained: TrainedRun, split: Split, examples: Sequence[Example]) -> Iterator[MicroBatch]:
    """The micro-batches of a test pass, on the model's device."""
    empty = Split()
    sources = DataSplits({"train": empty, "validation": empty, "test": split}, {}, [])
    prepared = RunComponents(
        trained.settings, trained.task, sources, trained.tokenizer, {"test": examples}, {}, adapter=trained.adapter
    )
    for step in build_datamodule(prepared).loader("test"):
        for micro in step.micro_batches:
            yield micro_to_device(micro, trained.model.device)


def model_outputs(trained: TrainedRun, split: Split) -> ModelOutputs:
    """The outputs of a model that gives one row of logits per record."""
    logits, targets, rows = list[Tensor](), list[Tensor](), list[Tensor]()
    with trained.use():
        for micro in test_micro_batches(trained, split, encode_examples(trained, split)):
            real = micro.row_indices >= 0
            logits.append(trained.task.logits(trained.model, micro)[real].double().cpu())
            targets.append(micro.targets[real].cpu())
            rows.append(micro.row_indices[real].cpu())
    order = torch.cat(rows).argsort()
    return ModelOutputs(torch.cat(logits)[order].numpy(), torch.cat(targets)[order], torch.cat(rows)[order])
