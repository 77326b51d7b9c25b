"""Data summary as text: a few lines at the start of a run, all of it for a preview.  Pure, imports nothing heavy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunelab.language.translation import message, translate

SPARK_LEVELS = "▁▂▃▄▅▆▇█"
MAX_LABELS_IN_LINE = 6  # labels listed in one line


def summary_lines(report: Mapping[str, Any]) -> dict[str, str]:
    """One line for each kind of finding, by its name, as a run prints them beside the table of counts."""
    lines = {
        message("lengths"): translate("; ").join(
            length_line(name, held) for name, held in report["lengths"].items() if name == "train"
        )
    }
    if any(len(table) > 1 for table in report["sources"].values()):
        lines[message("sources")] = translate("; ").join(
            f"{name} {list_counts(table, MAX_LABELS_IN_LINE)}" for name, table in report["sources"].items()
        )
    lines |= {message("columns"): translate("; ").join(column_lines(report))} if report.get("columns") else {}
    if report.get("unknown_tokens"):
        lines[message("unknown tokens")] = describe_unknown(report)
    if report.get("near_empty"):
        lines[message("near-empty texts")] = describe_near_empty(report)
    lines[message("duplicates")] = describe_duplicates(report)
    lines[message("leaks")] = describe_leaks(report)
    if "labels" in report:
        lines[message("labels")] = translate("; ").join(
            f"{name} {list_counts(table, MAX_LABELS_IN_LINE)}" for name, table in report["labels"].items()
        )
    for target, table in report.get("targets", {}).items():
        lines[target] = translate("; ").join(f"{name} {min_median_max(held)}" for name, held in table.items())
    if "template" in report:
        lines |= {message("format"): report["format"], message("template"): report["template"]}
    return lines


def column_lines(report: Mapping[str, Any]) -> list[str]:
    """What is done with the columns of each source, a line each."""
    lines = []
    for source, use in report.get("columns", {}).items():
        unread = [
            translate("{name} (text in {rows:,} [row|rows])", name=name, rows=rows)
            for name, rows in use["unread"].items()
        ]
        parts = [translate("{names} read", names=", ".join(use["read"]) or translate("none"))]
        parts += [translate("not read: {names}", names=", ".join(unread))] * bool(unread)
        parts += [translate("left out: {names}", names=", ".join(use["ignored"]))] * bool(use["ignored"])
        lines.append(", ".join([f"{source}: {parts[0]}" if source else parts[0], *parts[1:]]))
    return lines


def length_line(name: str, held: Mapping[str, Any]) -> str:
    """Lengths of one split in a line."""
    if not held:
        return f"{name} {translate('none')}"
    high = max(held["rows"])
    sparks = "".join(SPARK_LEVELS[-(-rows * (len(SPARK_LEVELS) - 1) // high)] for rows in held["rows"])
    return f"{name} {min_median_max(held['quantiles'], translate(' tokens'))}  {sparks}"


def min_median_max(quantiles: Mapping[str, float], unit: str = "") -> str:
    """Smallest, largest and median of some values."""
    low, middle, high = (f"{quantiles[name]:,.6g}" for name in ("least", "median", "most"))
    return translate("{low} to {high}{unit}, median {middle}", low=low, high=high, unit=unit, middle=middle)


def list_counts(table: Mapping[str, int], most: int) -> str:
    """Names with their counts, the rest summed up."""
    listed = [f"{name} {rows:,}" for name, rows in list(table.items())[:most]]
    rest = list(table.values())[most:]
    return ", ".join(
        [*listed, *([translate("{count} [other|others] {rest:,}", count=len(rest), rest=sum(rest))] if rest else [])]
    )


def count_rows(count: int, noun: str = "row") -> str:
    """A count with its noun, in the singular for one."""
    words = "{count:,} " + noun + "s" * (count != 1)
    return translate(words, count=count)


def describe_duplicates(report: Mapping[str, Any]) -> str:
    """Repeated rows of each split, and texts with two labels."""
    held = report["duplicates"]
    parts = [
        translate("{rows} in {name}", rows=count_rows(entry["repeats"], "duplicate row"), name=name)
        for name, entry in held.items()
    ]
    if same := report.get("token_duplicates", {}).get("rows"):
        across = report["token_duplicates"]["across_splits"]
        parts.append(translate("{rows} with another text but the same tokens", rows=count_rows(same)))
        parts[-1] += translate(", {across:,} of them across splits", across=across) * bool(across)
    if texts := report.get("conflicts", {}).get("texts"):
        parts.append(translate("{texts} with different labels", texts=count_rows(texts, "duplicate text")))
    return translate("; ").join(parts) or translate("none")


def has_duplicates(report: Mapping[str, Any]) -> bool:
    """Whether `describe_duplicates` has anything to tell."""
    same, conflicts = report.get("token_duplicates", {}), report.get("conflicts", {})
    return bool(report["duplicates"] or same.get("rows") or conflicts.get("texts"))


def describe_near_empty(report: Mapping[str, Any]) -> str:
    """Rows with a text that says nothing; empty where there are none."""
    return translate("; ").join(
        translate("{rows} of {name} with a text without a letter or digit", rows=count_rows(entry["rows"]), name=name)
        for name, entry in report.get("near_empty", {}).items()
    )


def describe_unknown(report: Mapping[str, Any]) -> str:
    """Share of the text of each split that the tokenizer does not know."""
    return ", ".join(f"{name} {share:.1%}" for name, share in report["unknown_tokens"].items())


def describe_leaks(report: Mapping[str, Any]) -> str:
    """Exact and near-duplicate leakage between splits."""
    exact, near = report["leaks"]["exact"], report["leaks"]["near"]
    parts = describe_leaking_pairs(exact, message("{rows} [row is|rows are] exact duplicates of {earlier} rows"))
    if near is None:
        return translate("; ").join(
            [*parts, translate("near-duplicates were not searched (data.near_duplicates=null)")]
        )
    if alike := describe_leaking_pairs(
        near["pairs"], message("{rows} [row is|rows are] near-duplicates of {earlier} rows")
    ):
        parts += [
            *alike[:-1],
            translate("{alike} (similarity {threshold:g} or more)", alike=alike[-1], threshold=near["threshold"]),
        ]
    return translate("; ").join([*(parts or [translate("none")]), *describe_search_limits(near)])


def describe_leaking_pairs(entries: Sequence[Mapping[str, Any]], template: str) -> list[str]:
    """Findings across splits, those that lead to the same earlier split in one text."""
    by_earlier: dict[str, list[str]] = {}
    for entry in entries:
        earlier, later = entry["splits"]
        by_earlier.setdefault(earlier, []).append(
            translate("{rows:,} of {of:,} {later}", rows=entry["rows"], of=entry["of"], later=later)
        )
    return [
        translate(template, rows=translate(" and ").join(counts), earlier=earlier)
        for earlier, counts in by_earlier.items()
    ]


def describe_search_limits(near: Mapping[str, Any]) -> list[str]:
    """Rows that the search for near duplicates has left out, a line each."""
    limits = [
        translate(
            "{looked:,} of {rows:,} [row|rows] of {name} were searched, evenly spaced",
            looked=looked,
            rows=rows,
            name=name,
        )
        for name, (looked, rows) in near["searched"].items()
        if looked < rows
    ]
    if near["crowded"]:
        limits.append(
            translate(
                "{crowded:,} [row has|rows have] more near-duplicate candidates than were compared",
                crowded=near["crowded"],
            )
        )
    return limits


BAR_WIDTH = 40  # characters of the longest bar
MAX_LABELS = 30  # labels listed in a preview
MAX_EXAMPLES_SHOWN = 2  # examples of each finding; the page and data_report.json hold more


def detail_sections(report: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The whole report but its table of counts and its records: titles, each with its lines."""
    for name, held in report["lengths"].items():
        if held:
            lengths = min_median_max(held["quantiles"])
            yield (
                translate("lengths of {name}, in tokens ({lengths})", name=name, lengths=lengths),
                histogram_lines(held),
            )
    if "trained" in report:
        yield (
            message("trained"),
            [
                translate("{share:.1%} of the tokens of {name}", share=share, name=name)
                for name, share in report["trained"].items()
            ],
        )
    yield message("sources"), [f"{name}: {list_counts(table, MAX_LABELS)}" for name, table in report["sources"].items()]
    yield message("columns"), column_lines(report)
    if report.get("unknown_tokens"):
        yield message("unknown tokens"), [describe_unknown(report)]
    same = [report["token_duplicates"]] if report.get("token_duplicates", {}).get("rows") else []
    findings = [*report["duplicates"].values(), *same]
    yield message("duplicates"), [*describe_duplicates(report).split(translate("; ")), *example_lines(findings)]
    if report.get("near_empty"):
        yield message("near-empty texts"), [describe_near_empty(report), *example_lines(report["near_empty"].values())]
    if report.get("conflicts", {}).get("texts"):
        yield (
            message("conflicts"),
            [
                translate("{texts:,} equal [text|texts]", texts=report["conflicts"]["texts"]),
                *example_lines([report["conflicts"]]),
            ],
        )
    near = report["leaks"]["near"]
    entries = [*report["leaks"]["exact"], *(near["pairs"] if near else [])]
    yield message("leaks"), [*describe_leaks(report).split(translate("; ")), *example_lines(entries)]
    if "labels" in report:
        yield (
            message("labels"),
            [f"{name}: {list_counts(table, MAX_LABELS)}" for name, table in report["labels"].items()],
        )
    for target, table in report.get("targets", {}).items():
        yield (
            translate("target {name}", name=target),
            [f"{name}: {min_median_max(held)}" for name, held in table.items()],
        )
    if "template" in report:
        yield message("format"), [report["format"]]
        yield message("template"), [report["template"]]
    if report["notes"]:
        yield message("notes"), list(report["notes"])


def histogram_lines(held: Mapping[str, Any]) -> list[str]:
    """A bar for each stretch of lengths."""
    high, edges = max(held["rows"]), held["edges"]
    lasts = [min(after - 1, held["quantiles"]["most"]) for after in edges[1:]]
    names = [
        f"{low:,}" if last == low else translate("{low:,} to {high:,}", low=low, high=last)
        for low, last in zip(edges, lasts, strict=False)
    ]
    wide = max(map(len, names))
    return [
        f"{name:>{wide}}  {'█' * -(-rows * BAR_WIDTH // high)} {rows:,}"
        for name, rows in zip(names, held["rows"], strict=True)
    ]


def example_lines(entries: Any) -> list[str]:
    """The examples of findings: where they stand, and what they say."""
    lines = []
    for entry in entries:
        for example in entry["examples"][:MAX_EXAMPLES_SHOWN]:
            alike = f"{example['likeness']:.2f}  " if "likeness" in example else ""
            lines.append(f"  {alike}{' | '.join(example['places'])}")
            lines += [f"      {text}" for text in example_texts(example)]
    return lines


def example_texts(example: Mapping[str, Any]) -> Sequence[str]:
    """The text, or the texts, of one example of a finding."""
    return example["texts"] if "texts" in example else [example["text"]]
