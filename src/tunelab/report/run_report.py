"""The report on one run, and its head: cards, verdicts, final scores with confidence intervals."""

import math
from collections.abc import Callable, Iterator, Mapping
from pkgutil import resolve_name

from tunelab.analysis.number_format import format_duration
from tunelab.analysis.statistics import score_interval
from tunelab.report.document import (
    Block,
    BulletList,
    Card,
    Cards,
    CellValue,
    Document,
    Paragraph,
    Section,
    Table,
    Tone,
    build_section,
)
from tunelab.report.example_sections import training_gain
from tunelab.report.formatting import format_cell, format_count
from tunelab.report.run_reader import RunResults
from tunelab.report.training_sections import (
    curves_section,
    data_section,
    diagnose_run_curve,
    doctor_section,
    provenance_section,
)
from tunelab.runs.run_status import PREEMPTED

STATUS_TONES: dict[str, Tone] = {
    "finished": "good", "early-stopped": "good", "running": "warn", "pruned": "warn", PREEMPTED: "warn",
    "diverged": "bad", "failed": "bad", "unknown": "warn",
}  # fmt: skip


def overview_section(run: RunResults) -> Section:
    """The first section: cards, verdicts, final scores."""
    blocks: list[Block] = [Cards(overview_cards(run)), BulletList(overview_verdicts(run))]
    if run.scores:
        blocks.append(scores_table(run.scores))
    return Section("In short", blocks)


def overview_cards(run: RunResults) -> list[Card]:
    """The headline numbers."""
    cards: list[Card] = []
    for name in run.description.headline_scores:
        value = run.scores.get(f"test/{name}")
        if value is not None and len(cards) < 3:
            cards.append(Card(f"test {name}", format_cell(float(value)), confidence_interval_text(run, name)))
    if run.best:
        at = f"best checkpoint, step {run.best.get('step')}"
        cards.append(Card(run.monitor, format_cell(run.best.get("value")), at))
    model = run.manifest.get("model") or {}
    if model.get("parameters"):
        cards.append(
            Card(
                "parameters",
                format_cell(float(model["parameters"])),
                f"{format_cell(float(model.get('trainable', 0)))} trained",
            )
        )
    rows = (run.data_report.get("splits") or {}).get("train", {}).get("rows")
    if rows:
        cards.append(Card("training rows", f"{rows:,}"))
    if run.manifest.get("seconds") is not None:
        cards.append(Card("time", format_duration(run.manifest["seconds"])))
    return cards


def overview_verdicts(run: RunResults) -> list[Paragraph]:
    """Verdicts on status, gain by training, learning curve and missing files."""
    reason = f": {run.manifest['reason']}" if run.manifest.get("reason") else ""
    steps = format_count(int(run.curves[-1].get("step", 0)) + 1, "step") if run.curves else "no logged step"
    lines = [Paragraph(f"The run is {run.status} after {steps}{reason}.", STATUS_TONES.get(run.status, "warn"))]
    lines += training_gain(run)
    if run.curves:
        lines += [Paragraph(text, tone) for tone, text in diagnose_run_curve(run).verdicts]
    lines += [Paragraph(f"{text}.", "warn") for text in run.read_faults]
    return lines


def scores_table(scores: Mapping[str, float]) -> Table:
    """Every final score: a row each, a column for each split."""
    splits = list(dict.fromkeys(name.rpartition("/")[0] for name in scores))
    names = list(dict.fromkeys(name.rpartition("/")[2] for name in scores))
    rows: list[list[CellValue]] = [[name, *(scores.get(f"{split}/{name}") for split in splits)] for name in names]
    return Table(
        "scores", ["score", *splits], rows, "Final scores of the best checkpoint; base is the model before training."
    )


BOOTSTRAP_DRAWS = 500  # enough for two digits of an interval
SAME_SCORE = 1e-3  # how far a recorded score may be from that of its predictions, which are rounded


def confidence_interval_text(run: RunResults, name: str) -> str:
    """The 95 % interval of a test score, or why it has none; empty where its rows are not known."""
    score = run.row_scores(run.predictions).get(name)
    known = run.scores.get(f"test/{name}")
    if score is None or known is None or score.rows < 2:
        return ""
    if not math.isclose(score.value, known, rel_tol=SAME_SCORE, abs_tol=SAME_SCORE):
        return f"no interval: the predictions give {format_cell(score.value)}"
    interval = score_interval(score, draws=BOOTSTRAP_DRAWS)
    if interval.reason:
        return f"no interval: {interval.reason}"
    return f"95 %: {format_cell(interval.low)} to {format_cell(interval.high)} over {score.rows:,} rows"


RunSection = Callable[[RunResults], Section | list[Section]]


def run_sections(run: RunResults) -> Iterator[tuple[str, RunSection]]:
    """The parts of the report in order, the task's own in the middle, each with a title in case it fails."""
    yield "In short", overview_section
    yield "Curves", curves_section
    for name in run.description.report_sections:
        title = name.rpartition(":")[2].removesuffix("_section").replace("_", " ").capitalize()
        yield title, resolve_name(name)
    yield "Doctor", doctor_section
    yield "Data", data_section
    yield "How it came to be", provenance_section


def build_run_report(run: RunResults) -> Document:
    """The report on one run."""
    details = [str(run.config.get("name") or ""), run.task, str((run.manifest.get("model") or {}).get("path") or "")]
    subtitle = ", ".join([*filter(None, details), str(run.root)])
    sections = [section for title, part in run_sections(run) for section in build_section(title, part, run)]
    return Document(f"Run {run.name}", subtitle, sections)
