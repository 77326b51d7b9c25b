"""Beginning and end of a run: its manifest, what is printed before training, its status, results and export."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from tunelab.config.resource_paths import resolve_path
from tunelab.config.schema import CausalDataConfig, DataConfig, RunConfig
from tunelab.data.mixture import list_sources
from tunelab.data.summary import summarize_data
from tunelab.data.summary_text import summary_lines
from tunelab.errors import Diverged, Pruned, TuneLabError
from tunelab.export.model_card import render_model_card
from tunelab.export.transformers_export import export_model
from tunelab.models.adapter_export import merge_adapter_weights, write_peft_adapter
from tunelab.models.adapters import AdaptedModel
from tunelab.models.architecture import describe_dropout
from tunelab.models.freezing import load_trainable_state, trainable_state
from tunelab.optim.factory import averaging_notes, schedule_notes
from tunelab.optim.param_groups import describe_learning_rates
from tunelab.regularization.model_support import regularization_notes
from tunelab.runs import console, resource_usage
from tunelab.runs.atomic_files import write_json
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.manifest import TOKENIZER_FILES, finish_manifest, sha256_file, sha256_folder, start_manifest
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.callbacks.checkpointing import BestCheckpoint
from tunelab.training.callbacks.early_stopping import EarlyStopping
from tunelab.training.callbacks.search_trial import Pruning
from tunelab.training.components import EncodedData, RunComponents, build_adapter, count_planned_steps
from tunelab.training.evaluate_run import EvalOutcome
from tunelab.training.generation_eval import generation_notes


def write_start_manifest(
    prepared: RunComponents, folder: RunDirectory, overrides: Sequence[str], resumed_at: int | None = None
) -> dict[str, Any]:
    """Write the card of a run that starts, so that even a killed one says what it was."""
    settings = prepared.settings
    place = resolve_path(settings.model.path)
    words = resolve_path(settings.model.tokenizer or settings.model.path)
    base = {
        "path": settings.model.path,
        "sha256": sha256_folder(place) if place else None,
        "revision": getattr(prepared.model.config, "_commit_hash", None),
        "tokenizer_sha256": tokenizer_sha256(words),
        "parameters": sum(p.numel() for p in prepared.model.parameters()),
        "trainable": sum(p.numel() for p in prepared.model.parameters() if p.requires_grad),
    }
    card = start_manifest(
        command=[Path(sys.executable).name, *sys.argv],
        overrides=list(overrides),
        config=settings.as_dict(),
        seed=settings.seed,
        data={"files": prepared.sources.file_hashes | template_sha256(settings.data), "notes": prepared.sources.notes},
        model=base,
        earlier=folder.read_manifest() if settings.resume else None,
        resumed_at=resumed_at,
    )
    folder.write_manifest(card)
    write_json(folder.task_state, prepared.task.state())
    return card


def first_session_overrides(card: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The words of a run's first session, by which trackers know it in every later one.

    Args:
        card: The run card as this session opened it.
        overrides: What this session's command line changed.
    """
    earlier = card.get("sessions") or []
    return list((earlier[0].get("overrides") or []) if earlier else overrides)


def minimal_manifest(settings: RunConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The card of a run that ends before its data and its model are there."""
    command = [Path(sys.executable).name, *sys.argv]
    return start_manifest(
        command=command, overrides=list(overrides), config=settings.as_dict(), seed=settings.seed, data={}, model={}
    )


def tokenizer_sha256(folder: Path | None) -> str | None:
    """The sha256 of a tokenizer's files; None where they are not on this disk."""
    known = folder is not None and any(True for pattern in TOKENIZER_FILES for _ in folder.glob(pattern))
    return sha256_folder(folder, TOKENIZER_FILES) if folder is not None and known else None


def template_sha256(data: DataConfig) -> dict[str, str]:
    """The sha256 of a chat template of the user's own, by the name it was given."""
    name = data.template if isinstance(data, CausalDataConfig) else ""
    place = resolve_path(name) if name.endswith(".jinja") else None
    return {name: sha256_file(place)} if place else {}


def print_run_summary(prepared: RunComponents, folder: RunDirectory) -> None:
    """Tell what is about to be trained on what; the same goes into the data report."""
    model = prepared.model
    sizes = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "depth": getattr(model.config, "num_hidden_layers", None),
        "width": getattr(model.config, "hidden_size", None),
        "heads": getattr(model.config, "num_attention_heads", None),
        "vocabulary": model.config.get_text_config().vocab_size,
        "rows": "packed" if prepared.packed else "padded, sorted by length",
    }
    settings = prepared.settings
    ways = describe_learning_rates(model, settings, count_planned_steps(settings, prepared.epoch_rows))
    if settings.regularization.dropout is not None or settings.regularization.attention_dropout is not None:
        ways["dropout"] = describe_dropout(model.config)
    name = {"name": settings.model.path, "family": model.config.model_type}
    console.show_model({**name, **sizes, "adapter": settings.adapter.kind, **ways})
    report = build_data_report(prepared)
    console.show_data(prepared.counts, summary_lines(report))
    of_rate = schedule_notes(settings.optimizer, settings.scheduler, count_planned_steps(settings, prepared.epoch_rows))
    of_averages = averaging_notes(settings.optimizer, settings.regularization)
    of_weights = regularization_notes(model, settings.regularization, settings.optimizer)
    for note in [*prepared.sources.notes, *of_rate, *of_averages, *of_weights, *generation_notes(prepared)]:
        console.say(f"  {note}")
    folder.write_data_report(report)


def build_data_report(encoded: EncodedData) -> dict[str, Any]:
    """The data report of a run or a preview."""
    threshold = encoded.settings.data.near_duplicates
    return summarize_data(encoded.task, encoded.sources, encoded.examples, encoded.counts, threshold=threshold)


def read_resume_step(folder: RunDirectory) -> int | None:
    """Optimizer steps in the checkpoint to go on from; None where the run never reached one."""
    if not folder.last.exists():
        console.say(f"{folder.root} has no checkpoint yet: starting from the beginning")
        return None
    steps = int(read_checkpoint(folder.last)["global_step"])
    console.say(f"going on after step {steps}")
    return steps


COMPLETE_STATUSES = ("finished", "early-stopped")  # statuses of a run that has all its scores
SIGNAL_EXITS = {143: "SIGTERM", 130: "SIGINT"}  # exit status of a run that left at a safe point, and why


@dataclass
class RunStatus:
    """How a run ended, for its card."""

    status: str = "finished"
    reason: str | None = None
    score: float | None = None

    @property
    def logger_status(self) -> str:
        """The status as trackers know it."""
        return {"pre-empted": "preempted", "failed": "failed", "diverged": "failed"}.get(self.status, "success")


def completed_status(trainer: L.Trainer, outcome: EvalOutcome, monitor: str) -> RunStatus:
    """Finished, or stopped early and why."""
    stopper = next((found for found in trainer_callbacks(trainer) if isinstance(found, EarlyStopping)), None)
    score = outcome.scores.get(monitor)
    if stopper and stopper.patience_exhausted:
        reason = f"{monitor} has not improved for {stopper.patience} validations, by epoch {stopper.stopped_epoch + 1}"
        return RunStatus("early-stopped", reason, score)
    return RunStatus(score=score)


def raise_if_pruned(trainer: L.Trainer) -> None:
    """Leave a run here that its search has ended.

    Raises:
        Pruned: If it has.
    """
    for found in trainer_callbacks(trainer):
        if isinstance(found, Pruning) and found.pruned:
            raise Pruned(f"ended by the search after validation {found.validations}: other trials were better by then")


def failure_status(fault: BaseException) -> RunStatus:
    """The status of a run that an exception ended."""
    if isinstance(fault, Diverged | Pruned):
        return RunStatus("diverged" if isinstance(fault, Diverged) else "pruned", str(fault))
    if isinstance(fault, SystemExit) and fault.code in SIGNAL_EXITS:
        return RunStatus("pre-empted", f"{SIGNAL_EXITS[fault.code]}; resume goes on from checkpoints/last.ckpt")
    if isinstance(fault, KeyboardInterrupt):
        return RunStatus("pre-empted", "interrupted; resume goes on from checkpoints/last.ckpt")
    reason = str(fault) if isinstance(fault, TuneLabError) else f"{type(fault).__name__}: {fault}"
    return RunStatus("failed", reason)


def trainer_callbacks(trainer: L.Trainer) -> list[Callback]:
    """The trainer's callbacks, in their order."""
    found: list[Callback] = getattr(trainer, "callbacks")  # noqa: B009  # set by a connector, unknown to type checkers
    return found


def write_final_manifest(
    folder: RunDirectory,
    card: Mapping[str, Any],
    ending: RunStatus,
    trainer: L.Trainer | None,
    outcome: EvalOutcome,
    seconds: float,
    energy: Mapping[str, float | None],
) -> None:
    """Write how a run ended onto its card, and what a repetition of it must give."""
    results = dict(outcome.weight_hashes)
    if outcome.weight_hashes and folder.predictions.is_file():
        results["predictions_sha256"] = sha256_file(folder.predictions)
    best = best_checkpoint_entry(trainer)
    folder.write_manifest(
        finish_manifest(
            card,
            ending.status,
            ending.reason,
            seconds,
            best,
            outcome.scores,
            results=results,
            energy=energy,
            memory=resource_usage.measure_peak_memory(card["sessions"]),
        )
    )


def best_checkpoint_entry(trainer: L.Trainer | None) -> dict[str, Any] | None:
    """Where the best checkpoint stands."""
    found = [c for c in trainer_callbacks(trainer) if isinstance(c, BestCheckpoint)] if trainer else []
    if not found or found[0].score is None:
        return None
    return {"step": found[0].step, "monitor": found[0].monitor, "value": found[0].score}


def write_results(
    prepared: RunComponents,
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
    outcome.scores = {name: found[0] for name, found in ends.items() if found} | outcome.scores
    folder.write_scores(outcome.scores)
    folder.write_score_tables(outcome.tables)
    for logger in loggers[1:]:  # not the curves: these scores belong to no step
        logger.log_metrics(
            {name: value for name, value in outcome.scores.items() if value == value}, trainer.global_step
        )
    if prepared.settings.save:
        write_export(prepared, folder, outcome, overrides)


def write_export(
    prepared: RunComponents,
    folder: RunDirectory,
    outcome: EvalOutcome,
    overrides: Sequence[str],
    target: Path | None = None,
) -> None:
    """Leave the best model as plain transformers loads it, in the run's `export/` unless a target is given."""
    settings, task = prepared.settings, prepared.task
    text = render_model_card(
        name=f"{settings.name}-{folder.root.name}",
        task=task.name,
        base_model=settings.model.path,
        data={
            "name": " + ".join(s.name or Path(str(s.data.train)).stem for s in list_sources(settings.data)),
            "files": prepared.sources.file_hashes,
            "splits": prepared.counts,
        },
        settings={key: value for key, value in settings.as_dict().items() if key not in {"data", "logger"}},
        scores=outcome.scores,
        command=shlex.join(["python", "train.py", *overrides]),
    )
    plain = merge_adapter_weights(unquantized_adapter(prepared), prepared.tokenizer)
    if warning := task.finalize_model(plain.model):
        console.say(warning)
    options = task.export_options()
    if options.get("chat_template"):
        options["chat_template"] = plain.template(options["chat_template"])
    export_model(
        plain.model,
        plain.tokenizer,
        target or folder.export,
        card=text,
        extra_files=lambda part: write_peft_adapter(
            prepared.adapter, plain.model, part / "adapter", base_model_location(settings)
        ),
        **options,
    )


def unquantized_adapter(prepared: RunComponents) -> AdaptedModel:
    """What is merged into plain weights: the trained adapter, on an unpacked base where training had it in 4 bit."""
    if prepared.adapter.kind != "qlora":
        return prepared.adapter
    settings = replace(prepared.settings, adapter=replace(prepared.settings.adapter, kind="lora"))
    unpacked = build_adapter(settings, prepared.task, prepared.tokenizer)
    load_trainable_state(unpacked.model, trainable_state(prepared.model, prepared.model.state_dict()))
    return unpacked


def base_model_location(settings: RunConfig) -> str:
    """Where the base model lies, as a path or hub id that other programs understand."""
    place = resolve_path(settings.model.path)
    return str(place.absolute() if place else settings.model.path)


def scores_by_split(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`split/score` names as a table: split, then score."""
    table: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        split, _, bare = name.partition("/")
        if split == "last":  # in metrics.json: a column for one number would say little
            continue
        table.setdefault(split, {})[bare] = value
    return table
