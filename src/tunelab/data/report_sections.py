"""The parts of the page that tell of the data as a whole.  Pure: values in, HTML out."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from tunelab.data.pieces import escaped
from tunelab.data.report_facts import bounds, duplicates, leaks
from tunelab.data.report_lines import texts_of

ROWS = 30  # labels or sources with a bar


def files(report: Mapping[str, Any]) -> Iterator[str]:
    """The files, the template and the notes."""
    for name, digest in report["files"].items():
        yield f'<p class="soft">{safe(name)} (sha256 {safe(str(digest)[:12])})</p>'
    if "template" in report:
        yield f'<p class="soft">template: {safe(report["template"])}</p>'
    for note in report["notes"]:
        yield f"<p>{safe(note)}</p>"


def counts(splits: Mapping[str, Mapping[str, int | float]]) -> Iterator[str]:
    """The table of counts."""
    names = list(dict.fromkeys(name for row in splits.values() for name in row))
    yield '<div class="wide"><table><tr><th>split</th>' + "".join(f"<th>{safe(name)}</th>" for name in names) + "</tr>"
    for split, row in splits.items():
        cells = "".join(f"<td>{row.get(name, 0):,}</td>" for name in names)
        yield f"<tr><td>{safe(split)}</td>{cells}</tr>"
    yield "</table></div>"


def lengths(held: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A histogram for each split."""
    yield '<h2>Lengths, in tokens</h2><div class="cards">'
    for name, spread in held.items():
        if spread:
            high, most, edges = max(spread["rows"]), spread["quantiles"]["most"], spread["edges"]
            columns = "".join(
                f'<span style="height:{100 * rows / high:.1f}%" title="{low} to {last}: {rows:,} rows"></span>'
                for rows, low, last in zip(
                    spread["rows"], edges, [*(edge - 1 for edge in edges[1:-1]), most], strict=False
                )
            )
            yield f'<div class="card"><h3>{safe(name)}: {bounds(spread["quantiles"])}</h3>'
            yield f'<div class="bars">{columns}</div>'
            yield f'<div class="axis"><span>{edges[0]:,}</span><span>{most:,}</span></div></div>'
    yield "</div>"


def findings(report: Mapping[str, Any]) -> Iterator[str]:
    """Duplicates and leaks, with places."""
    near = report["leaks"]["near"]
    within = [
        *((name, entry) for name, entry in report["duplicates"].items()),
        *((("different labels", report["conflicts"]),) if report.get("conflicts", {}).get("texts") else ()),
    ]
    across = [
        *((" and ".join(entry["splits"]) + ", copies", entry) for entry in report["leaks"]["exact"]),
        *((" and ".join(entry["splits"]) + ", alike", entry) for entry in (near["pairs"] if near else ())),
    ]
    for title, told, entries in (
        ("Duplicates within a split", duplicates(report), within),
        ("Leaks across splits", leaks(report), across),
    ):
        yield f"<h2>{title}</h2><ul>" + "".join(f"<li>{safe(line)}</li>" for line in told.split("; ")) + "</ul>"
        yield '<div class="cards">'
        for name, entry in entries:
            yield f'<div class="card"><h3>{safe(name)}</h3>'
            yield from map(example, entry["examples"])
            yield "</div>"
        yield "</div>"


def example(held: Mapping[str, Any]) -> str:
    """One finding: how alike, where, what."""
    alike = f"{held['likeness']:.2f} alike: " if "likeness" in held else ""
    texts = "".join(f"<div>{safe(text)}</div>" for text in texts_of(held))
    return f'<div class="example"><div class="soft">{alike}{safe(" | ".join(held["places"]))}</div>{texts}</div>'


def bars(title: str, tables: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Counts by name, a card for each split."""
    if tables:
        yield f'<h2>{title}</h2><div class="cards">'
        for split, table in tables.items():
            yield f'<div class="card"><h3>{safe(split)}</h3>'
            high = max(table.values(), default=1)
            for name, rows in list(table.items())[:ROWS]:
                bar = f'<i style="width:{100 * rows / high:.1f}%"></i>'
                yield f'<div class="row"><b title="{safe(name)}">{safe(name)}</b>{bar}<em>{rows:,}</em></div>'
            if rest := list(table.values())[ROWS:]:
                yield f'<p class="soft">{len(rest):,} others, {sum(rest):,} rows</p>'
            yield "</div>"
        yield "</div>"


def targets(held: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """Quantiles of each target and split."""
    for target, splits in held.items():
        names = list(next(iter(splits.values())))
        head = "".join(f"<th>{name}</th>" for name in names)
        yield f'<h2>Target {safe(target)}</h2><div class="wide"><table><tr><th>split</th>{head}</tr>'
        for split, row in splits.items():
            yield f"<tr><td>{safe(split)}</td>" + "".join(f"<td>{row[name]:,.6g}</td>" for name in names) + "</tr>"
        yield "</table></div>"


def safe(text: str) -> str:
    """Text of the data as text of a page."""
    return escape("".join(letter if letter.isprintable() or letter == "\n" else escaped(letter) for letter in text))
