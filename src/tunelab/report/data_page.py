"""The data summary and a preview of records as one page: no script, nothing loaded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunelab.data.preview import PreviewRecord, escape_char
from tunelab.data.summary_text import (
    column_lines,
    describe_duplicates,
    describe_leaks,
    describe_near_empty,
    describe_unknown,
    example_texts,
    min_median_max,
)
from tunelab.language.translation import translate
from tunelab.report.render import render_page

MAX_BARS = 30  # labels or sources with a bar


def render_data_page(title: str, report: Mapping[str, Any], records: Sequence[PreviewRecord], split: str) -> str:
    """The whole page.

    Args:
        title: What the data is for, such as the name of the model.
        report: As `summarize_data` gives it.
        records: Records to show, of one split.
        split: Its name.
    """
    return render_page(
        "data_page.html",
        title,
        printable=visible_text,
        report={"labels": {}, "targets": {}, **report},
        records=records,
        split=split,
        count_names=list(dict.fromkeys(name for row in report["splits"].values() for name in row)),
        histograms=list(length_histograms(report["lengths"])),
        columns=column_lines(report),
        unknown=describe_unknown(report) if report.get("unknown_tokens") else "",
        findings=finding_lists(report),
        any_trained={piece.trained for record in records for part in record.sequences for piece in part} != {None},
        max_bars=MAX_BARS,
        percent=lambda part, whole: f"{100 * part / whole:.1f}%",
        thousands=lambda count: f"{count:,}",
        six_digits=lambda value: f"{value:,.6g}",
    )


def length_histograms(lengths: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A histogram for each split: its title, bars with height and label, and the ends of the axis."""
    for name, spread in lengths.items():
        if spread:
            rows, edges, most = spread["rows"], spread["edges"], spread["quantiles"]["most"]
            last_lengths = [*(edge - 1 for edge in edges[1:-1]), most]
            yield {
                "title": f"{name}: {min_median_max(spread['quantiles'])}",
                "bars": [
                    {
                        "height": f"{100 * count / max(rows):.1f}%",
                        "label": translate("{low} to {last}: {count:,} [row|rows]", low=low, last=last, count=count),
                    }
                    for count, low, last in zip(rows, edges, last_lengths, strict=False)
                ],
                "low": edges[0],
                "high": most,
            }


def finding_lists(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Duplicates and leaks: a title, lines, and a panel of examples for each entry."""
    near = report["leaks"]["near"]
    within = list(report["duplicates"].items())
    if report.get("token_duplicates", {}).get("rows"):
        within.append((translate("same tokens"), report["token_duplicates"]))
    if report.get("conflicts", {}).get("texts"):
        within.append((translate("different labels"), report["conflicts"]))
    across = [
        (translate("{splits}, copies", splits=translate(" and ").join(entry["splits"])), entry)
        for entry in report["leaks"]["exact"]
    ]
    across += [
        (translate("{splits}, alike", splits=translate(" and ").join(entry["splits"])), entry)
        for entry in (near["pairs"] if near else ())
    ]
    return [
        {
            "title": title,
            "lines": lines.split(translate("; ")),
            "panels": [(name, list(map(example_item, entry["examples"]))) for name, entry in entries],
        }
        for title, lines, entries in (
            (translate("Duplicates within a split"), describe_duplicates(report), within),
            (translate("Leaks across splits"), describe_leaks(report), across),
            (translate("Near-empty texts"), describe_near_empty(report), report.get("near_empty", {}).items()),
        )
        if lines
    ]


def example_item(example: Mapping[str, Any]) -> dict[str, Any]:
    """One example of a finding: how alike the rows are and where they stand, and their texts."""
    alike = translate("{likeness:.2f} alike: ", likeness=example["likeness"]) if "likeness" in example else ""
    return {"head": alike + " | ".join(example["places"]), "texts": example_texts(example)}


def visible_text(text: str) -> str:
    """Text of the data with every character that cannot be seen written out."""
    return "".join(letter if letter.isprintable() or letter == "\n" else escape_char(letter) for letter in text)
