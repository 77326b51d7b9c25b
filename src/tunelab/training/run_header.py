"""What a run prints before it trains: six lines and its warnings; every setting and every count with -v."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tunelab.analysis.number_format import format_bytes, format_number
from tunelab.data.data_sources import drop_counts, dropped_notes, duplicate_notes
from tunelab.data.summary_text import describe_duplicates, describe_leaks, has_duplicates, summary_lines
from tunelab.errors import WarningNote
from tunelab.language.translation import message, translate
from tunelab.models.architecture import describe_dropout
from tunelab.models.chunked_logits import logits_budget
from tunelab.models.device_placement import TrainingPlacement, select_training_device
from tunelab.optim.factory import averaging_notes, schedule_notes
from tunelab.optim.param_groups import describe_learning_rates
from tunelab.optim.schedules import warmup_steps
from tunelab.regularization.model_support import regularization_notes
from tunelab.runs import console
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.terminal import is_verbose
from tunelab.tasks.causal import CausalTask
from tunelab.training.components import (
    RunComponents,
    build_data_report,
    count_epoch_steps,
    count_planned_steps,
    describe_packing,
    whole_loss_reason,
)
from tunelab.training.generation_eval import generation_notes, generation_samples
from tunelab.training.lifecycle import demo_model_notes
from tunelab.training.memory_profile import free_bytes
from tunelab.training.trial_steps import device_name

MAX_NOTES = 12  # notes that are printed; data_report.json has those on the data


def print_run_header(components: RunComponents, folder: RunDirectory, overrides: Sequence[str]) -> None:
    """Print what is about to be trained, on what and where, with its warnings, and write the data report."""
    steps = count_planned_steps(components.settings, components.epoch_rows)
    report = build_data_report(components)
    if is_verbose():
        console.show_config(components.settings.as_dict(), overrides)
        console.show_model(model_facts(components, steps))
        console.show_data(components.counts, summary_lines(report))
    dropped = dropped_notes(components.counts, components.task)
    lines = {
        translate("changed"): shlex.join(overrides)
        or translate("nothing: every setting is its default (-v prints them)"),
        translate("model"): model_line(components),
        translate("data"): data_line(components, [*report["lengths"].values()]),
        translate("rate"): rate_line(components, steps),
        translate("device"): device_line(components),
        translate("folder"): console.short_path(folder.root),
    }
    console.show_facts(lines, {translate("data"): "warning"} if dropped else {})
    said = [*dropped, *duplicate_notes(components.sources.duplicates)]  # of these the lines and the report say more
    notes = [*duplicates_note(report), *(note for note in run_notes(components, steps) if note not in said)]
    notes.sort(key=lambda note: not isinstance(note, WarningNote))
    if is_verbose():
        notes += generation_samples(components)
    for note in notes[:MAX_NOTES]:
        console.say_note(note)
    if more := notes[MAX_NOTES:]:
        text = translate("{count} more [note is|notes are] in run.json and data_report.json", count=len(more))
        console.say_note(text)
    folder.write_data_report(report)


def model_line(components: RunComponents) -> str:
    """The model, its size, and how much of it learns."""
    model, settings = components.model, components.settings
    size = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    share = translate("all trained")
    if trained != size:
        share = translate("{trained:,} of them trained ({share:.2%})", trained=trained, share=trained / size)
    adapter = settings.adapter.kind
    return translate(
        "{path} ({family}), {size:,} parameters, {share}{adapter}",
        path=settings.model.path,
        family=model.config.model_type,
        size=size,
        share=share,
        adapter="" if adapter == "full" else translate(", adapter {kind}", kind=adapter),
    )


def data_line(components: RunComponents, lengths: Sequence[dict[str, object]]) -> str:
    """Rows of each split that are kept, those that are dropped by reason, the lengths of training rows, packing."""
    counts = {name: row for name, row in components.counts.items() if row["rows"]}
    streamed = {"train"} if components.settings.data.streaming else set()
    numbers = {name: translate("streamed") if name in streamed else f"{row['kept']:,}" for name, row in counts.items()}
    kept = ", ".join(f"{name} {number}" for name, number in numbers.items())
    dropped = [
        translate(
            "{split} {dropped:,} of {rows:,} ({reasons})",
            split=name,
            dropped=row["dropped"],
            rows=row["rows"],
            reasons=drop_counts(row, components.task),
        )
        for name, row in counts.items()
        if row["dropped"]
    ]
    cut = [f"{name} {row['truncated']:,}" for name, row in counts.items() if row["truncated"]]
    parts = [
        translate("{kept} rows", kept=kept),
        translate("dropped: {splits}", splits=", ".join(dropped) or translate("none")),
    ]
    parts += [translate("truncated: {splits}", splits=", ".join(cut))] * bool(cut)
    spread = lengths[0].get("quantiles") if lengths else None
    if isinstance(spread, dict):
        least, median, most = (format_number(spread[name]) for name in ("least", "median", "most"))
        parts.append(
            translate(
                "length: min {least}, median {median}, max {most} [token|tokens]", least=least, median=median, most=most
            )
        )
    return translate("; ").join([*parts, translate("packing: {state}", state=describe_packing(components))])


def rate_line(components: RunComponents, steps: int) -> str:
    """Learning rate, optimizer, schedule, batch size, epochs and steps."""
    settings = components.settings
    rise = warmup_steps(settings.scheduler.number("warmup"), steps)
    schedule = settings.scheduler.name.replace("_", " ")
    epochs = format_number(steps / max(1, count_epoch_steps(settings, components.epoch_rows)))
    facts = {"lr": settings.lr, "optimizer": settings.optimizer.name, "schedule": schedule}
    rate = (
        translate(
            "lr {lr:.3g}, {optimizer}, {schedule} schedule with {rise:,} warm-up [step|steps]", rise=rise, **facts
        )
        if rise
        else translate("lr {lr:.3g}, {optimizer}, {schedule} schedule", **facts)
    )
    size = translate("batch {batch}, {steps:,} [step|steps]", batch=settings.batch_size, steps=steps)
    if settings.data.streaming:
        return translate("{rate}; {size}", rate=rate, size=size)
    length = translate("{epochs} [epoch|epochs]", epochs=epochs)
    return translate("{rate}; {size}, {length}", rate=rate, size=size, length=length)


def device_line(components: RunComponents) -> str:
    """Device, precision and memory."""
    trainer = components.settings.trainer
    placement = TrainingPlacement.from_config(trainer)
    several = f"{trainer.devices} x " if trainer.devices not in (1, "1", "auto") else ""
    free = free_bytes(placement.device)
    device = f"{several}{device_name(placement.device)}"
    line = translate("{device}, precision {precision}", device=device, precision=placement.precision)
    memory = [] if free is None else [translate("memory: {size} available", size=format_bytes(free))]
    return translate("; ").join([line, *memory])


def model_facts(components: RunComponents, steps: int) -> dict[str, object]:
    """Facts of the model by name."""
    model, settings = components.model, components.settings
    facts: dict[str, object] = {
        message("name"): settings.model.path,
        message("family"): model.config.model_type,
        message("parameters"): sum(p.numel() for p in model.parameters()),
        message("trainable"): sum(p.numel() for p in model.parameters() if p.requires_grad),
        message("depth"): getattr(model.config, "num_hidden_layers", None),
        message("width"): getattr(model.config, "hidden_size", None),
        message("heads"): getattr(model.config, "num_attention_heads", None),
        message("vocabulary"): model.config.get_text_config().vocab_size,
        message("packing"): describe_packing(components),
        message("adapter"): settings.adapter.kind,
        **describe_learning_rates(model, settings, steps),
    }
    if settings.regularization.dropout is not None or settings.regularization.attention_dropout is not None:
        facts[message("dropout")] = describe_dropout(model.config)
    return facts


def run_notes(components: RunComponents, steps: int) -> list[str]:
    """What a reader should know of a run before it trains."""
    model, settings = components.model, components.settings
    return [
        *demo_model_notes(settings),
        *components.adapter.notes,
        *components.sources.notes,
        *schedule_notes(settings.optimizer, settings.scheduler, steps),
        *averaging_notes(settings.optimizer, settings.regularization),
        *regularization_notes(model, settings.regularization, settings.optimizer),
        *generation_notes(components),
        *memory_notes(components),
    ]


def memory_notes(components: RunComponents) -> list[str]:
    """A note where the loss holds the logits of all positions, large as they may be."""
    settings, task = components.settings, components.task
    if settings.memory.chunked_loss != "auto" or not isinstance(task, CausalTask):
        return []
    size = 4 * settings.micro_tokens * components.model.config.get_text_config().vocab_size
    large = size > logits_budget(select_training_device(settings.trainer.accelerator))
    reason = whole_loss_reason(settings, task, components.model) if large else None
    if reason is None:
        return []
    return [
        f"the logits of a pass stand in memory as a whole, up to {format_bytes(size)} and three times that with their "
        f"gradient: {reason}; a smaller micro_tokens takes less"
    ]


def duplicates_note(report: Mapping[str, Any]) -> list[str]:
    """A sentence on duplicates and leakage, a warning where rows of one split are in another; none without any."""
    near = report["leaks"]["near"]
    leaks = [describe_leaks(report)] if report["leaks"]["exact"] or (near and near["pairs"]) else []
    parts = [translate("leakage: {found}", found=text) for text in leaks]
    parts += [translate("duplicates: {found}", found=describe_duplicates(report))] * has_duplicates(report)
    kind = WarningNote if report["leaks"]["exact"] else str
    return [kind(translate("; ").join(parts))] if parts else []
