"""Before training: the run card is opened, and what is about to happen is told."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelab import console
from tunelab.assemble import Encoded, Prepared, planned_steps
from tunelab.atomic import write_json
from tunelab.checkpoint_io import read_checkpoint
from tunelab.config.regularization_config import RegularizationConfig
from tunelab.config.resource_paths import resolve_path
from tunelab.data.summary import summarize_data
from tunelab.data.summary_text import summary_lines
from tunelab.models.architecture import describe_dropout
from tunelab.optim.factory import averaging_notes, schedule_notes
from tunelab.optim.param_groups import describe_learning_rates
from tunelab.record import RunFolder
from tunelab.regularization.model_support import regularization_notes
from tunelab.run_card import TOKENIZER, open_card, sha256_file, sha256_folder
from tunelab.settings import Run
from tunelab.training.generation_eval import generation_notes


def begin_card(
    prepared: Prepared, folder: RunFolder, overrides: Sequence[str], resumed_at: int | None = None
) -> dict[str, Any]:
    """Write the card of a run that starts, so that even a killed one says what it was."""
    settings = prepared.settings
    place = resolve_path(str(settings.model["path"]))
    words = resolve_path(str(settings.model.get("tokenizer") or settings.model["path"]))
    base = {
        "path": settings.model["path"],
        "sha256": sha256_folder(place) if place else None,
        "revision": getattr(prepared.model.config, "_commit_hash", None),
        "tokenizer_sha256": tokenizer_sha256(words),
        "parameters": sum(p.numel() for p in prepared.model.parameters()),
        "trainable": sum(p.numel() for p in prepared.model.parameters() if p.requires_grad),
    }
    card = open_card(
        command=[Path(sys.executable).name, *sys.argv],
        overrides=list(overrides),
        config=settings.plain,
        seed=settings.seed,
        data={"files": prepared.sources.files | template_file(settings.data), "notes": prepared.sources.notes},
        model=base,
        earlier=folder.read_card() if settings.resume else None,
        resumed_at=resumed_at,
    )
    folder.write_card(card)
    write_json(folder.learned, prepared.task.state())
    return card


def started_with(card: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """The words of a run's first session, by which trackers know it in every later one.

    Args:
        card: The run card as this session opened it.
        overrides: What this session's command line changed.
    """
    earlier = card.get("sessions") or []
    return list((earlier[0].get("overrides") or []) if earlier else overrides)


def unprepared_card(settings: Run, overrides: Sequence[str]) -> dict[str, Any]:
    """The card of a run that ends before its data and its model are there."""
    command = [Path(sys.executable).name, *sys.argv]
    return open_card(
        command=command, overrides=list(overrides), config=settings.plain, seed=settings.seed, data={}, model={}
    )


def tokenizer_sha256(folder: Path | None) -> str | None:
    """The sha256 of a tokenizer's files; None where they are not on this disk."""
    known = folder is not None and any(True for pattern in TOKENIZER for _ in folder.glob(pattern))
    return sha256_folder(folder, TOKENIZER) if folder is not None and known else None


def template_file(data: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of a chat template of the user's own, by the name it was given."""
    name = str(data.get("template") or "")
    place = resolve_path(name) if name.endswith(".jinja") else None
    return {name: sha256_file(place)} if place else {}


def show_work(prepared: Prepared, folder: RunFolder) -> None:
    """Tell what is about to be trained on what; the same goes into the data report."""
    model = prepared.model
    sizes = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "depth": getattr(model.config, "num_hidden_layers", None),
        "width": getattr(model.config, "hidden_size", None),
        "heads": getattr(model.config, "num_attention_heads", None),
        "vocabulary": model.config.get_text_config().vocab_size,
        "rows": "end to end" if prepared.flat else "padded, sorted by length",
    }
    settings = prepared.settings
    ways = describe_learning_rates(model, settings, planned_steps(settings, prepared.epoch_rows))
    if any(settings.regularization.get(name) is not None for name in ("dropout", "attention_dropout")):
        ways["dropout"] = describe_dropout(model.config)
    name = {"name": settings.model["path"], "family": model.config.model_type}
    console.show_model({**name, **sizes, "adapter": settings.adapter["kind"], **ways})
    report = report_of(prepared)
    console.show_data(prepared.counts, summary_lines(report))
    of_rate = schedule_notes(settings.optimizer, settings.scheduler, planned_steps(settings, prepared.epoch_rows))
    of_averages = averaging_notes(settings.optimizer, settings.regularization)
    of_weights = regularization_notes(model, RegularizationConfig.of(settings.regularization), settings.optimizer)
    for note in [*prepared.sources.notes, *of_rate, *of_averages, *of_weights, *generation_notes(prepared)]:
        console.say(f"  {note}")
    folder.write_report(report)


def report_of(encoded: Encoded) -> dict[str, Any]:
    """The data report of a run or a preview."""
    threshold = encoded.settings.data.get("near_duplicates")
    return summarize_data(encoded.task, encoded.sources, encoded.examples, encoded.counts, threshold=threshold)


def steps_done(folder: RunFolder) -> int | None:
    """Optimizer steps in the checkpoint to go on from; None where the run never reached one."""
    if not folder.last.exists():
        console.say(f"{folder.root} has no checkpoint yet: starting from the beginning")
        return None
    steps = int(read_checkpoint(folder.last)["global_step"])
    console.say(f"going on after step {steps}")
    return steps
