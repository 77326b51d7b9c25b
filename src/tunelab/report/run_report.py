"""The report on one run: the verdict with every warning, curves, scores, what the task adds, provenance."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from pkgutil import resolve_name

from tunelab.analysis.number_format import format_duration
from tunelab.config.quoting import path_word
from tunelab.language.translation import translate
from tunelab.report.document import (
    Block,
    BulletList,
    Command,
    Document,
    Paragraph,
    Section,
    Tone,
    build_section,
    lift_warnings,
)
from tunelab.report.formatting import format_cell, format_count
from tunelab.report.next_run import next_run_section
from tunelab.report.run_reader import RunResults
from tunelab.report.run_verdict import STATUS_TONES, ending, run_verdicts, scores_table
from tunelab.report.training_sections import (
    curves_section,
    data_section,
    diagnose_run_curve,
    doctor_section,
    provenance_section,
)
from tunelab.runs import console
from tunelab.runs.run_dir import RunDirectory

RunSection = Callable[[RunResults], Section | list[Section]]


def verdict_section(run: RunResults) -> Section:
    """The first section: the verdict, and what is said about the run as a whole."""
    lines: list[Paragraph] = []
    if STATUS_TONES.get(run.status) == "good" and run.manifest.get("reason"):
        lines.append(Paragraph(ending(run)))
    if run.curves:
        lines += [Paragraph(text, tone, "Curves") for tone, text in diagnose_run_curve(run).verdicts]
    tone: Tone = "plain" if run.status == "running" else "warn"  # what is not there yet is no fault
    lines += [Paragraph(translate("{value}.", value=text), tone) for text in run.read_faults]
    if is_demo_model(run):
        text = translate(
            "The built-in model is a demonstration that knows a small made-up world; model.path=... names another."
        )
        lines.append(Paragraph(text, "warn", "Provenance"))
    return Section(
        "Verdict",
        [*run_verdicts(run), BulletList(lines), Paragraph(translate("{value}.", value=run_facts(run)), "soft")],
    )


BUILT_IN = ("package:tunelab.starter/", "generated:starter/")  # how paths of the built-in model and data begin


def is_demo_model(run: RunResults) -> bool:
    """Whether the built-in model was trained on data that did not come with it."""
    model, data = run.config.get("model"), run.config.get("data")
    if not isinstance(model, Mapping) or not isinstance(data, Mapping):
        return False
    sources = data.get("mix") or data.get("train")
    return str(model.get("path")).startswith(BUILT_IN) and bool(sources) and not str(sources).startswith(BUILT_IN)


def run_facts(run: RunResults) -> str:
    """Size of model and data, steps, time and the best checkpoint, in a line."""
    model = run.manifest.get("model") or {}
    facts = []
    if model.get("parameters"):
        trained = format_cell(float(model.get("trainable", 0)))
        facts.append(
            translate(
                "{parameters} parameters, {trained} of them trained",
                parameters=format_cell(float(model["parameters"])),
                trained=trained,
            )
        )
    counts = (run.data_report.get("splits") or {}).get("train", {})
    rows = counts.get("kept", counts.get("rows"))
    facts += [format_count(int(rows), "training row")] if rows else []
    if run.curves:
        facts.append(format_count(int(run.curves[-1].get("step", 0)) + 1, "step"))
    if run.manifest.get("seconds") is not None:
        facts.append(format_duration(run.manifest["seconds"]))
    if run.best:
        value = format_cell(run.best.get("value"))
        facts.append(
            translate(
                "best checkpoint at step {step} ({monitor} {value})",
                step=run.best.get("step"),
                monitor=run.monitor,
                value=value,
            )
        )
    return translate("; ").join(facts) or translate("Nothing is recorded of its size and time")


def scores_section(run: RunResults) -> Section:
    """The section with every final score, or how to get them."""
    if run.scores:
        return Section("Scores", [scores_table(run)])
    if RunDirectory(run.root).last.is_file():
        text = translate("The run left no final scores: it did not get that far.")
        resume = f"{console.train_command(run.manifest.get('script'))} {shlex.quote(path_word('resume', run.root))}"
        return Section("Scores", [Paragraph(text, "soft"), Command(resume, translate("To go on with it:"))])
    text = translate("The run left no final scores, and no checkpoint to go on from.")
    missing: list[Block] = [Paragraph(text, "soft")]
    if command := run.manifest.get("command"):
        missing.append(Command(str(command), translate("To run it again:")))
    return Section("Scores", missing)


def run_sections(run: RunResults) -> Iterator[tuple[str, RunSection]]:
    """The parts of the report in order, the task's own in the middle, each with a title in case it fails."""
    yield "Verdict", verdict_section
    yield "What to run next", next_run_section
    yield "Curves", curves_section
    yield "Scores", scores_section
    for name in run.description.report_sections:
        title = name.rpartition(":")[2].removesuffix("_section").replace("_", " ").capitalize()
        yield title, resolve_name(name)
    yield "Doctor", doctor_section
    yield "Data", data_section
    yield "Provenance", provenance_section


def build_run_report(run: RunResults) -> Document:
    """The report on one run."""
    details = [str(run.config.get("name") or ""), run.task, str((run.manifest.get("model") or {}).get("path") or "")]
    subtitle = ", ".join([*filter(None, details), str(run.root)])
    sections = [section for title, part in run_sections(run) for section in build_section(title, part, run)]
    return Document(translate("Run {name}", name=run.name), subtitle, lift_warnings(sections))
