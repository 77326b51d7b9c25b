"""A trained model out of its run directory, ready to be used; the training data is not needed, it may have moved."""

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunelab.config.resource_paths import expand_home
from tunelab.config.resume import read_settings
from tunelab.config.schema import PretrainedModelConfig, RunConfig
from tunelab.config.stored_files import shape_faults_explained
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError, first_line
from tunelab.language.translation import translate
from tunelab.models.adapters import AdaptedModel
from tunelab.models.architecture import sequence_limit
from tunelab.models.device_placement import TrainingPlacement, place_model
from tunelab.models.freezing import load_trainable_state
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.runs.base_weights import check_base_weights
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.file_digests import sha256_folder
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.stored_json import read_stored_json
from tunelab.tasks.base import Task
from tunelab.training.components import build_adapter, build_task, choose_packing


@dataclass
class TrainedRun:
    """A finished run, loaded for use.

    Attributes:
        adapter: The model, with the best weights, in evaluation mode, on the device; and what was trained in it.
        source: The file or folder the weights came from.
        note: For the user, on how it was loaded, if anything.
    """

    folder: RunDirectory
    settings: RunConfig
    task: Task
    tokenizer: PreTrainedTokenizerBase
    adapter: AdaptedModel
    placement: TrainingPlacement
    source: Path
    note: str | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model to use."""
        return self.adapter.model

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Within this block the model computes as it did when it was scored: same precision, no gradient."""
        with torch.inference_mode(), self.placement.autocast():
            yield

    def identity(self) -> str:
        """A text that differs between any two trained models."""
        return f"{self.folder.read_manifest()['id']} {weights_hash(self.source)}"


def load_run(path: str | Path, checkpoint: Path | None = None) -> TrainedRun:
    """The best model of a run.

    The best checkpoint goes onto the base model it was trained from.  Where either is gone, the export serves.

    Args:
        path: The run folder.
        checkpoint: Another checkpoint of the run than its best one.

    Raises:
        ConfigError: If there is no run, no weights are left of it, or the base weights under it changed.
    """
    folder = find_run(path)
    settings = read_run_config(folder)
    task = build_task(settings)
    source = checkpoint or folder.best
    # an export holds all weights, and serves where the checkpoint is gone
    note = check_base_weights(folder.read_manifest(), folder.root) if source.is_file() else None
    try:
        if not source.is_file():
            raise ConfigError(translate("there is no {relative_to}", relative_to=source.relative_to(folder.root)))
        restore_task(task, _read_json_object(folder.task_state), folder.task_state)
        tokenizer = load_tokenizer(settings.model)
        longest = sequence_limit(settings.model, settings.adapter, tokenizer, max_tokens=settings.data.max_tokens)
        task.set_tokenizer(tokenizer, longest)
        adapter = build_adapter(settings, task, tokenizer)
        load_checkpoint_weights(adapter.model, source)
    except ConfigError as fault:
        if checkpoint is not None:  # the export holds other weights
            raise
        source = folder.export
        if "ensemble" in folder.read_manifest() and not (source / "config.json").is_file():
            raise ConfigError(
                translate(
                    "{root} is an ensemble of predictions and no single model: tunelab predict and "
                    "tunelab evaluate take it; for one model combine weights with --method soup",
                    root=folder.root,
                )
            ) from fault
        if not (source / "config.json").is_file():
            raise ConfigError(
                translate(
                    "{root} cannot be restored: {fault}; and it has no export/ to take", root=folder.root, fault=fault
                )
            ) from fault
        note = translate(
            "taken from {source}, since the checkpoint cannot be used: {fault}", source=source, fault=first_line(fault)
        )
        settings, tokenizer, adapter = load_from_export(settings, task, folder)
    model = adapter.model
    placement = TrainingPlacement.from_config(settings.trainer)  # as far as this machine has what it was trained on
    choose_packing(placement, task, model, settings.data, settings.model.attention)
    if settings.trainer.precision == "64-true":
        model.double()
    place_model(model.eval(), placement.device)
    return TrainedRun(folder, settings, task, tokenizer, adapter, placement, source, note)


def load_checkpoint_weights(model: PreTrainedModel, path: Path) -> None:
    """Put the weights of a checkpoint of training into a model of the same architecture.

    Raises:
        ConfigError: If they do not fit.
    """
    own = "model."  # the name of the network inside `FineTuner`
    targets = {f"{own}{name}": weight for name, weight in model.state_dict().items()}
    state = read_checkpoint(path, mapped=True, targets=targets)["state_dict"]
    try:
        load_trainable_state(model, {name.removeprefix(own): state[name] for name in state if name.startswith(own)})
    except RuntimeError as fault:
        raise ConfigError(
            translate(
                "{path} does not fit the base model, which must have changed since: {fault}", path=path, fault=fault
            )
        ) from fault


def load_from_export(
    settings: RunConfig, task: Task, folder: RunDirectory
) -> tuple[RunConfig, PreTrainedTokenizerBase, AdaptedModel]:
    """The settings with a run's export as their model, its tokenizer, and the merged model."""
    state, config = _read_json_object(folder.task_state), _read_json_object(folder.export / "config.json")
    # of regression: an export whose head holds the scale has none left to apply
    state |= {name: config[f"target_{name}"] for name in ("mean", "std") if f"target_{name}" in config}
    restore_task(task, state, folder.task_state)
    old = settings.model  # the export has the layers that were kept, and all weights in one
    model_config = PretrainedModelConfig(
        path=str(folder.export), size=old.size, attention=old.attention, freeze=old.freeze
    )
    settings = replace(settings, model=model_config, adapter=replace(settings.adapter, kind="full"))
    tokenizer = load_tokenizer(settings.model)
    longest = sequence_limit(settings.model, settings.adapter, tokenizer, max_tokens=settings.data.max_tokens)
    task.set_tokenizer(tokenizer, longest)
    model = load_model(settings.model, tokenizer, head=task.head, options=task.head_options())
    return settings, tokenizer, AdaptedModel(model, "full")


def find_run(path: str | Path) -> RunDirectory:
    """The run folder at a path.

    Raises:
        ConfigError: If there is none; says what was looked for, and what stands near it.
    """
    root = expand_home(path)
    if RunDirectory(root).exists() and RunDirectory(root).config.is_file():
        return RunDirectory(root)
    what = (
        translate("the folder has no run.json and config.yaml")
        if root.is_dir()
        else translate("there is no such folder")
    )
    beside = sorted(path.parent.name for path in root.parent.glob("*/run.json")) if root.parent.is_dir() else []
    inside = sorted(path.parent.name for path in root.glob("*/run.json")) if root.is_dir() else []
    near = inside[-3:] or get_close_matches(root.name, beside, 3) or beside[-3:]
    hint = (
        translate("; {value} it are the runs {names}", value="in" if inside else "near", names=", ".join(near))
        if near
        else ""
    )
    raise ConfigError(
        translate(
            "{path} is not a run: {what}; give the folder a training printed as its run folder{hint}",
            path=path,
            what=what,
            hint=hint,
        )
    )


def read_run_config(folder: RunDirectory) -> RunConfig:
    """The settings a run was made with."""
    return validate_config(read_settings(folder.config), for_training=False)


def restore_task(task: Task, state: dict[str, Any], file: Path) -> None:
    """Put a task into the state that its run wrote down.

    Raises:
        ConfigError: If the values are of another kind than a run writes; names the file.
    """
    with shape_faults_explained(file):
        task.restore(state)


def weights_hash(source: Path) -> str:
    """A hash of weights: of a folder's files, or of the checksums that a checkpoint keeps of its parts."""
    if source.is_dir():
        return str(sha256_folder(source))
    with zipfile.ZipFile(source) as archive:
        parts = [(entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the run.

    Raises:
        ConfigError: If it is not there, or damaged.
    """
    try:
        return read_stored_json(path)
    except FileNotFoundError:
        raise ConfigError(
            translate("{folder} has no {name}: the run never began to train", folder=path.parent, name=path.name)
        ) from None
