"""Beginning and end of a run: its manifest, what is printed before training, its status, results and export."""

import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from tunelab.config.resource_paths import resolve_path
from tunelab.config.schema import LOW_RANK_KINDS, CausalDataConfig, DataConfig, RunConfig
from tunelab.data.mixture import list_sources
from tunelab.errors import ConfigError, Diverged, Pruned, TuneLabError, WarningNote, first_line
from tunelab.export.model_card import render_model_card
from tunelab.export.transformers_export import export_model, write_model_files
from tunelab.language.translation import translate
from tunelab.models.adapter_export import MergedModel, merge_adapter_weights, write_peft_adapter
from tunelab.models.adapters import AdaptedModel
from tunelab.models.freezing import load_trainable_state, trainable_state
from tunelab.models.sharding import is_sharded
from tunelab.runs import console, resource_usage
from tunelab.runs.atomic_files import check_space, file_size_limit, write_json
from tunelab.runs.checkpoint import DamagedCheckpoint, read_checkpoint, restore_previous
from tunelab.runs.file_digests import TOKENIZER_FILES, sha256_file, sha256_folder
from tunelab.runs.manifest import finish_manifest, start_manifest
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.run_status import PREEMPTED, RunStatus
from tunelab.runs.stop_signals import STOP_EXITS
from tunelab.tasks.base import Task
from tunelab.tasks.causal import CausalTask
from tunelab.tracking.base import ResultsLogger, split_final_scores
from tunelab.training.callbacks.checkpointing import BestCheckpoint, LastCheckpoint
from tunelab.training.callbacks.early_stopping import EarlyStopping
from tunelab.training.callbacks.search_trial import Pruning
from tunelab.training.components import RunComponents, build_adapter
from tunelab.training.evaluate_run import EvalOutcome
from tunelab.training.generation_eval import SMALL_MODEL_PARAMETERS
from tunelab.training.load_run import load_checkpoint_weights


def write_start_manifest(
    components: RunComponents,
    folder: RunDirectory,
    overrides: Sequence[str],
    *,
    resumed_at: int | None = None,
    recovered: str | None = None,
) -> dict[str, Any]:
    """Write the manifest of a run that starts, so that even a killed one says what it was.

    Args:
        resumed_at: Optimizer step of the checkpoint that it goes on from.
        recovered: What was done about a damaged last checkpoint, a sentence.
    """
    settings = components.settings
    place = resolve_path(settings.model.path)
    words = resolve_path(settings.model.tokenizer or settings.model.path)
    base = {
        "path": settings.model.path,
        "sha256": sha256_folder(place) if place else None,
        "revision": getattr(components.model.config, "_commit_hash", None),
        "tokenizer_sha256": tokenizer_sha256(words),
        "parameters": sum(p.numel() for p in components.model.parameters()),
        "trainable": sum(p.numel() for p in components.model.parameters() if p.requires_grad),
        "notes": components.adapter.notes,
    }
    earlier = folder.read_manifest() if settings.resume else None
    if earlier and (trained_on := (earlier.get("model") or {}).get("sha256")):  # what it was trained on from the start
        if base["sha256"] != trained_on:
            base["changed_sha256"] = base["sha256"]
        base["sha256"] = trained_on
    manifest = start_manifest(
        command=[Path(sys.executable).name, *sys.argv],
        overrides=list(overrides),
        config=settings.as_dict(),
        seed=settings.seed,
        data={
            "files": components.sources.file_hashes | template_sha256(settings.data),
            "notes": components.sources.notes,
            **template_date_entry(components.task),
        },
        model=base,
        earlier=earlier,
        resumed_at=resumed_at,
    )
    manifest["recovered"] = recovered
    folder.write_manifest(manifest)
    write_json(folder.task_state, components.task.state(), exact=True)
    return manifest


def first_session_overrides(manifest: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The words of a run's first session, by which trackers know it in every later one.

    Args:
        manifest: The run manifest as this session opened it.
        overrides: What this session's command line changed.
    """
    earlier = manifest.get("sessions") or []
    return list((earlier[0].get("overrides") or []) if earlier else overrides)


def minimal_manifest(settings: RunConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The manifest of a run that ends before its data and its model are there."""
    command = [Path(sys.executable).name, *sys.argv]
    return start_manifest(
        command=command, overrides=list(overrides), config=settings.as_dict(), seed=settings.seed, data={}, model={}
    )


def tokenizer_sha256(folder: Path | None) -> str | None:
    """The sha256 of a tokenizer's files; None where they are not on this disk."""
    known = folder is not None and any(True for pattern in TOKENIZER_FILES for _ in folder.glob(pattern))
    return sha256_folder(folder, TOKENIZER_FILES) if folder is not None and known else None


def template_sha256(data: DataConfig) -> dict[str, str]:
    """The sha256 of a chat template of the user's own, by its name in the settings."""
    name = data.template if isinstance(data, CausalDataConfig) else ""
    place = resolve_path(name) if name.endswith(".jinja") else None
    return {name: sha256_file(place)} if place else {}


def template_date_entry(task: Task) -> dict[str, str]:
    """The day that the chat template writes, as an entry of the manifest; none where it writes none."""
    day = task.template.date if isinstance(task, CausalTask) else None
    return {} if day is None else {"template_date": day}


BUILT_IN = "package:tunelab.starter/"  # paths of the model and the data that come with this package


def demo_model_notes(settings: RunConfig) -> list[str]:
    """A warning where the small built-in model is trained on the user's own data, which it is too small for."""
    sources = settings.data.mix or settings.data.train
    if settings.model.path != f"{BUILT_IN}model" or str(sources).startswith((BUILT_IN, "generated:starter/")):
        return []
    return [
        WarningNote(
            translate(
                "model=starter is a demonstration of one million parameters that knows a small "
                "made-up world in English; for data of your own name a model: "
                "model.path=FOLDER_OR_HUB_ID, or model=minilm, smollm2_135m, qwen3_0_6b"
            )
        )
    ]


def read_resume_step(folder: RunDirectory, *, is_main: bool = True) -> tuple[int | None, str | None]:
    """Optimizer steps in the checkpoint to go on from, None where the run never reached one; and what was damaged.

    A last checkpoint that is damaged gives way to the one before it, with a warning; only the main process moves files.
    """
    if not folder.last.exists() and not folder.previous.exists():
        console.say(translate("{folder} has no checkpoint yet: starting from the beginning", folder=folder.root))
        return None, None
    recovered: str | None = None
    try:
        steps = int(read_checkpoint(folder.last, values_only=True)["global_step"])
    except DamagedCheckpoint as fault:
        if is_main:
            recovered = restore_previous(folder, str(fault))
            print(translate("WARNING: {recovered}", recovered=recovered), file=sys.stderr)
        steps = int(read_checkpoint(folder.previous, values_only=True)["global_step"])
    console.say(translate("going on after step {step}", step=steps))
    return steps, recovered


def check_run_space(components: RunComponents, folder: RunDirectory) -> None:
    """Check that the files of a run fit on the disk, before it trains; what a resumed one replaces counts as room.

    Raises:
        TuneLabError: Naming what is needed and what is there.
    """
    settings, trained = components.settings, components.model.parameters()
    weights = sum(weight.nbytes for weight in trained if weight.requires_grad)
    last = weights * (3 if "adam" in settings.optimizer.target.lower() else 1)  # with two moments of each weight
    export = sum(weight.nbytes for weight in components.model.parameters()) if settings.save else 0
    limit = file_size_limit()
    if limit is not None and last > limit:
        check_space(folder.last, last)
    there = sum(file.stat().st_size for file in (folder.last, folder.best) if file.is_file())
    needed, free = max(2 * last + weights + export - there, last), shutil.disk_usage(folder.root).free
    if needed > free:
        raise TuneLabError(
            translate(
                "the disk is too full for this run: {free:,} [byte is|bytes are] free in {root}, and its files "
                "need at least {needed:,}: last.ckpt, twice while it is replaced ({last:,} each), "
                "best.ckpt ({weights:,}){value}. Make room, or name another place by "
                "hydra.run.dir=DIR",
                free=free,
                root=folder.root,
                needed=needed,
                last=last,
                weights=weights,
                value=f", the export ({export:,})" if export else "",
            )
        )


class LeftAtOnce(SystemExit):
    """Ctrl-C came a second time: the run ends in mid-step, with the checkpoint that is there.

    Attributes:
        checkpoint: Which one that is, a sentence.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__(128 + signal.SIGINT)
        self.checkpoint = checkpoint


def left_at_once(fault: BaseException, trainer: L.Trainer | None) -> LeftAtOnce | None:
    """The end of a run by a second Ctrl-C, where Lightning ended it with status 1; None for any other end."""
    interrupted = isinstance(fault, SystemExit) and isinstance(fault.__context__, KeyboardInterrupt)
    callbacks = trainer_callbacks(trainer) if trainer and interrupted else []
    last = next((callback for callback in callbacks if isinstance(callback, LastCheckpoint)), None)
    if last is None:
        return None
    if last.saved_step is None:
        return LeftAtOnce(translate("no checkpoint was written yet, so resume starts from the beginning"))
    return LeftAtOnce(
        translate(
            "checkpoints/last.ckpt of step {saved_step} is saved, and resume continues from there",
            saved_step=last.saved_step,
        )
    )


def completed_status(trainer: L.Trainer, outcome: EvalOutcome, monitor: str) -> RunStatus:
    """Finished, or stopped early and why."""
    stopper = next((callback for callback in trainer_callbacks(trainer) if isinstance(callback, EarlyStopping)), None)
    score = outcome.scores.get(monitor)
    if stopper and stopper.patience_exhausted:
        reason = translate(
            "{monitor} has not improved for {patience} [validation|validations], by epoch {stopped_epoch}",
            monitor=monitor,
            patience=stopper.patience,
            stopped_epoch=stopper.stopped_epoch + 1,
        )
        return RunStatus("early-stopped", reason, score)
    return RunStatus(score=score)


def raise_if_pruned(trainer: L.Trainer) -> None:
    """Leave a run here that its search has ended.

    Raises:
        Pruned: If it has.
    """
    for callback in trainer_callbacks(trainer):
        if isinstance(callback, Pruning) and callback.pruned:
            when = translate("after validation {validations}", validations=callback.validations)
            raise Pruned(translate("ended by the search {when}: other trials were better by then", when=when))


def failure_status(fault: BaseException) -> RunStatus:
    """The status of a run that an exception ended."""
    if isinstance(fault, Diverged | Pruned):
        return RunStatus("diverged" if isinstance(fault, Diverged) else "pruned", str(fault))
    if isinstance(fault, LeftAtOnce):
        return RunStatus(
            PREEMPTED, translate("interrupted twice, so it ended at once; {checkpoint}", checkpoint=fault.checkpoint)
        )
    if isinstance(fault, SystemExit) and fault.code in STOP_EXITS:
        return RunStatus(
            PREEMPTED,
            translate("{stop_exits}; resume goes on from checkpoints/last.ckpt", stop_exits=STOP_EXITS[fault.code]),
        )
    if isinstance(fault, KeyboardInterrupt):
        return RunStatus(PREEMPTED, translate("interrupted; resume goes on from checkpoints/last.ckpt"))
    reason = str(fault) if isinstance(fault, TuneLabError) else f"{type(fault).__name__}: {fault}"
    return RunStatus("failed", reason)


def trainer_callbacks(trainer: L.Trainer) -> list[Callback]:
    """The trainer's callbacks, in their order."""
    callbacks: list[Callback] = getattr(trainer, "callbacks")  # noqa: B009  # set by a connector, unknown to mypy
    return callbacks


def write_final_manifest(
    folder: RunDirectory,
    manifest: Mapping[str, Any],
    status: RunStatus,
    trainer: L.Trainer | None,
    outcome: EvalOutcome,
    seconds: float,
    energy: Mapping[str, float | None],
) -> None:
    """Write the status, the scores and the hashes of a finished run into its manifest."""
    results = dict(outcome.weight_hashes)
    if outcome.weight_hashes and folder.predictions.is_file():
        results["predictions_sha256"] = sha256_file(folder.predictions)
    best = best_checkpoint_entry(trainer)
    folder.write_manifest(
        finish_manifest(
            manifest,
            status.status,
            status.reason,
            seconds,
            best,
            outcome.scores,
            results=results,
            energy=energy,
            memory=resource_usage.measure_peak_memory(manifest["sessions"]),
        )
    )


def best_checkpoint_entry(trainer: L.Trainer | None) -> dict[str, Any] | None:
    """Step and score of the best checkpoint, for the manifest; None without one."""
    callbacks = trainer_callbacks(trainer) if trainer else []
    best = next((callback for callback in callbacks if isinstance(callback, BestCheckpoint)), None)
    if best is None or best.score is None:
        return None
    return {"step": best.step, "monitor": best.monitor, "mode": best.mode, "value": best.score}


def write_results(
    components: RunComponents,
    folder: RunDirectory,
    outcome: EvalOutcome,
    overrides: Sequence[str],
    loggers: Sequence[Logger],
    trainer: L.Trainer,
) -> None:
    """Leave scores, tables and the export; trackers get the final scores too."""
    curves = folder.read_curves()
    kept = {"train/loss": "train/loss_epoch", "last/loss": "val/loss"}  # of the last weights, not of the best
    ends = {name: [row[curve] for row in curves if curve in row][-1:] for name, curve in kept.items()}
    outcome.scores = {name: last[0] for name, last in ends.items() if last} | outcome.scores
    folder.write_scores(outcome.scores)
    folder.write_score_tables(outcome.tables)
    final = {name: value for name, value in split_final_scores(outcome.scores)[1].items() if value == value}
    for logger in loggers[1:]:  # not the curves: these scores belong to no step
        if not isinstance(logger, ResultsLogger):  # those get them with all other results, to be kept beside the curves
            logger.log_metrics(final, trainer.global_step)
    if components.settings.save:
        write_export(components, folder, outcome, overrides)


def write_export(
    components: RunComponents,
    folder: RunDirectory,
    outcome: EvalOutcome,
    overrides: Sequence[str],
    target: Path | None = None,
) -> None:
    """Leave the best model as plain transformers loads it, in the run's `export/` unless a target is given."""
    settings, task = components.settings, components.task
    if is_sharded(components.model):  # no process has the whole of it: this one builds it, from the checkpoint
        components = replace(components, adapter=build_adapter(settings, task, components.tokenizer))
        load_checkpoint_weights(components.model, folder.best)
    text = render_model_card(
        name=f"{settings.name}-{folder.root.name}",
        task=task.name,
        base_model=settings.model.path,
        data={
            "name": " + ".join(s.name or Path(str(s.data.train)).stem for s in list_sources(settings.data)),
            "files": components.sources.file_hashes,
            "splits": components.counts,
        },
        settings={key: value for key, value in settings.as_dict().items() if key not in {"data", "logger", "lang"}},
        scores=outcome.scores,
        command=shlex.join(["python", "train.py", *overrides]),
    )
    plain = merge_adapter_weights(unquantized_adapter(components), components.tokenizer)
    if warning := task.finalize_model(plain.model):
        console.say(warning)
    options = task.export_options()
    if options.get("chat_template"):
        options["chat_template"] = plain.prefixed_template(options["chat_template"])
    export_model(
        plain.model,
        plain.tokenizer,
        target or folder.export,
        card=text,
        extra_files=lambda part: write_peft_adapter(
            components.adapter, plain.model, part / "adapter", base_model_location(settings)
        ),
        **options,
    )


def rehearse_export(components: RunComponents) -> None:
    """Write the files of the export but for its weights, into a folder that goes: what could fail fails now.

    Raises:
        ConfigError: If the model that is trained could not be saved at the end.
    """
    model, adapter = components.model, components.adapter
    small = sum(weight.numel() for weight in model.parameters()) <= SMALL_MODEL_PARAMETERS
    # a copy of a large one takes long and much memory; soft prompts are new tokens, so their tokenizer must be tried
    merged = adapter.kind in ("prompt", *((*LOW_RANK_KINDS, "layernorm") if small and adapter.kind != "qlora" else ()))
    try:
        with tempfile.TemporaryDirectory() as place, torch.random.fork_rng(devices=[]):
            plain = (
                merge_adapter_weights(adapter, components.tokenizer)
                if merged
                else MergedModel(model, components.tokenizer)
            )
            options = components.task.export_options()
            if options.get("chat_template"):
                options["chat_template"] = plain.prefixed_template(options["chat_template"])
            write_model_files(plain.model, plain.tokenizer, Path(place), weights=False, **options)
            if merged:
                write_peft_adapter(
                    adapter, plain.model, Path(place) / "adapter", base_model_location(components.settings)
                )
    except OSError as fault:  # no room in the folder for temporary files says nothing of the run's own
        console.say_marked("warning", translate("the export could not be tried before training: {fault}", fault=fault))
    except (
        Exception
    ) as fault:  # of transformers, of PEFT, of the tokenizer: at the end it would cost the whole training
        raise ConfigError(
            translate(
                "this model cannot be saved as it would be after training: {fault}. Mend it in the "
                "folder of the base, take another adapter than {kind}, or train without an export "
                "(save=false)",
                fault=first_line(fault),
                kind=adapter.kind,
            )
        ) from fault


def unquantized_adapter(components: RunComponents) -> AdaptedModel:
    """The adapter to merge into plain weights: the trained one, on an unpacked base where training had it in 4 bit."""
    if components.adapter.kind != "qlora":
        return components.adapter
    settings = replace(components.settings, adapter=replace(components.settings.adapter, kind="lora"))
    unpacked = build_adapter(settings, components.task, components.tokenizer)
    load_trainable_state(unpacked.model, trainable_state(components.model, components.model.state_dict()))
    return unpacked


def base_model_location(settings: RunConfig) -> str:
    """The location of the base model, as a path or hub id that other programs understand."""
    place = resolve_path(settings.model.path)
    return str(place.absolute() if place else settings.model.path)
