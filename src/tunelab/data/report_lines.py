"""The whole data report in lines, for a preview.  Pure: a report in, texts out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunelab.data.report_facts import bounds, duplicates, leaks, listed

WIDEST = 40  # characters of the longest bar
MORE_LABELS = 30  # told in a preview
TOLD = 2  # examples of each finding; the page and data_report.json hold more


def details(report: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The whole report but its table of counts and its records: titles, each with its lines."""
    for name, held in report["lengths"].items():
        if held:
            yield f"lengths of {name}, in tokens ({bounds(held['quantiles'])})", histogram(held)
    if "trained" in report:
        yield "trained", [f"{share:.1%} of the tokens of {name}" for name, share in report["trained"].items()]
    yield "sources", [f"{name}: {listed(table, MORE_LABELS)}" for name, table in report["sources"].items()]
    yield "duplicates", [duplicates(report), *found(report["duplicates"].values())]
    if report.get("conflicts", {}).get("texts"):
        yield "conflicts", [f"{report['conflicts']['texts']:,} equal texts", *found([report["conflicts"]])]
    near = report["leaks"]["near"]
    entries = [*report["leaks"]["exact"], *(near["pairs"] if near else [])]
    yield "leaks", [*leaks(report).split("; "), *found(entries)]
    if "labels" in report:
        yield "labels", [f"{name}: {listed(table, MORE_LABELS)}" for name, table in report["labels"].items()]
    for target, table in report.get("targets", {}).items():
        yield f"target {target}", [f"{name}: {bounds(held)}" for name, held in table.items()]
    if "template" in report:
        yield "format", [report["format"]]
        yield "template", [report["template"]]
    if report["notes"]:
        yield "notes", list(report["notes"])


def histogram(held: Mapping[str, Any]) -> list[str]:
    """A bar for each stretch of lengths."""
    high, edges = max(held["rows"]), held["edges"]
    lasts = [min(after - 1, held["quantiles"]["most"]) for after in edges[1:]]
    names = [f"{low:,}" if last == low else f"{low:,} to {last:,}" for low, last in zip(edges, lasts, strict=False)]
    wide = max(map(len, names))
    return [
        f"{name:>{wide}}  {'█' * -(-rows * WIDEST // high)} {rows:,}"
        for name, rows in zip(names, held["rows"], strict=True)
    ]


def found(entries: Any) -> list[str]:
    """The examples of findings: where they stand, and what they say."""
    lines = []
    for entry in entries:
        for example in entry["examples"][:TOLD]:
            alike = f"{example['likeness']:.2f}  " if "likeness" in example else ""
            lines.append(f"  {alike}{' | '.join(example['places'])}")
            lines += [f"      {text}" for text in texts_of(example)]
    return lines


def texts_of(example: Mapping[str, Any]) -> Sequence[str]:
    """The text, or the texts, of one example of a finding."""
    return example["texts"] if "texts" in example else [example["text"]]
