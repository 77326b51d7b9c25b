"""The section on the data: counts, lengths, what repeats, what leaks.  Pure."""

from collections.abc import Mapping
from typing import Any

from tunelab.charts.bar import Bars, bar_chart
from tunelab.data.report_facts import duplicates, leaks
from tunelab.report.blocks import Block, Chart, Grid, Section, Verdicts, Words
from tunelab.report.run_facts import RunFacts
from tunelab.report.words import counted

LABELS = 20  # bars of a drawing


def data(run: RunFacts) -> list[Section]:
    """The section; none where the run left no data report."""
    report = run.data
    if not report:
        return []
    splits = report["splits"]
    names = list(dict.fromkeys(name for row in splits.values() for name in row))
    rows = [[split, *(row.get(name, 0) for name in names)] for split, row in splits.items()]
    blocks: list[Block] = [Verdicts(verdicts(report)), Grid("data", ["split", *names], rows)]
    blocks += lengths(report.get("lengths", {}))
    blocks += labels(report.get("labels", {}))
    files = [[name, str(digest)] for name, digest in report.get("files", {}).items()]
    blocks.append(
        Grid("data_files", ["file", "sha256"], files, "What was read; the sum proves that it is the same file.")
    )
    blocks += [Words(note, "soft") for note in report.get("notes", ())]
    return [Section("Data", blocks)]


def verdicts(report: Mapping[str, Any]) -> list[Words]:
    """Duplicates, leaks and dropped rows, each judged."""
    twice, leaked = duplicates(report), leaks(report)
    lines = [Words(f"Duplicates: {twice}.", "good" if twice == "none" else "warn")]
    held = report["leaks"]
    copies = bool(held["exact"])
    alike = bool(held["near"] and held["near"]["pairs"])
    lines.append(Words(f"Leaks: {leaked}.", "bad" if copies else "warn" if alike else "good"))
    dropped = sum(row.get("dropped", 0) for row in report["splits"].values())
    cut = sum(row.get("truncated", 0) for row in report["splits"].values())
    if dropped or cut:
        lines.append(
            Words(f"{counted(dropped, 'row')} dropped and {counted(cut, 'row')} cut to the longest length.", "warn")
        )
    return lines


def lengths(held: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """The lengths of the training rows."""
    spread = held.get("train") or {}
    if not spread:
        return []
    edges, most = spread["edges"], spread["quantiles"]["most"]
    lasts = [min(edge - 1, most) for edge in edges[1:]]
    groups = [f"{low:,}" if low == last else f"{low:,} to {last:,}" for low, last in zip(edges, lasts, strict=False)]
    title = "Lengths of the training rows"
    counts = [float(rows) for rows in spread["rows"]]
    svg = bar_chart(groups[: len(counts)], [Bars("", counts)], title=title, value_label="rows, by tokens", level=True)
    return [Chart("lengths", svg, "", title)]


def labels(held: Mapping[str, Mapping[str, int]]) -> list[Block]:
    """How often each label occurs in training."""
    table = held.get("train") or {}
    if not table:
        return []
    names = sorted(table, key=lambda name: -table[name])
    title = "Labels of the training rows" + (
        f", the {LABELS} most frequent of {len(names)}" if len(names) > LABELS else ""
    )
    bars = [Bars("", [float(table[name]) for name in names[:LABELS]])]
    return [Chart("labels", bar_chart(names[:LABELS], bars, title=title, value_label="rows", level=True), "", title)]
