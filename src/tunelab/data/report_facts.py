"""The data report in a few lines, for the start of a run.  Pure: a report in, texts out."""

from collections.abc import Mapping, Sequence
from typing import Any

LEVELS = "▁▂▃▄▅▆▇█"
LABELS = 6  # told in one line


def facts(report: Mapping[str, Any]) -> dict[str, str]:
    """What a run tells of its data beside the table of counts: a line for each kind of finding, by its name."""
    found = {"lengths": "; ".join(length(name, held) for name, held in report["lengths"].items() if name == "train")}
    if any(len(table) > 1 for table in report["sources"].values()):
        found["sources"] = "; ".join(f"{name} {listed(table, LABELS)}" for name, table in report["sources"].items())
    found["duplicates"] = duplicates(report)
    found["leaks"] = leaks(report)
    if "labels" in report:
        found["labels"] = "; ".join(f"{name} {listed(table, LABELS)}" for name, table in report["labels"].items())
    for target, table in report.get("targets", {}).items():
        found[target] = "; ".join(f"{name} {bounds(held)}" for name, held in table.items())
    if "template" in report:
        found |= {"format": report["format"], "template": report["template"]}
    return found


def length(name: str, held: Mapping[str, Any]) -> str:
    """Lengths of one split in a line."""
    if not held:
        return f"{name} none"
    high = max(held["rows"])
    sparks = "".join(LEVELS[-(-rows * (len(LEVELS) - 1) // high)] for rows in held["rows"])
    return f"{name} {bounds(held['quantiles'], ' tokens')}  {sparks}"


def bounds(quantiles: Mapping[str, float], unit: str = "") -> str:
    """Smallest, middle and largest of some values."""
    low, middle, high = (f"{quantiles[name]:,.6g}" for name in ("least", "median", "most"))
    return f"{low} to {high}{unit}, half up to {middle}"


def listed(table: Mapping[str, int], most: int) -> str:
    """Names with their counts, the rest summed up."""
    told = [f"{name} {rows:,}" for name, rows in list(table.items())[:most]]
    rest = list(table.values())[most:]
    return ", ".join([*told, *([f"{len(rest)} others {sum(rest):,}"] if rest else [])])


def duplicates(report: Mapping[str, Any]) -> str:
    """Repeated rows of each split, and texts with two labels."""
    held = report["duplicates"]
    told = [f"{entry['repeats']:,} rows of {name} repeat another" for name, entry in held.items()]
    if texts := report.get("conflicts", {}).get("texts"):
        told.append(f"{texts:,} equal texts carry different labels")
    return "; ".join(told) or "none"


def leaks(report: Mapping[str, Any]) -> str:
    """Rows of one split that stand in another, exactly or nearly."""
    exact, near = report["leaks"]["exact"], report["leaks"]["near"]
    told = grouped(exact, "are copies from")
    if near is None:
        return "; ".join([*told, "near ones not looked for (data.near_duplicates=null)"])
    if alike := grouped(near["pairs"], "resemble"):
        told += [*alike[:-1], f"{alike[-1]} ({near['threshold']:g} or more alike)"]
    return "; ".join([*(told or ["none"]), *limits(near)])


def grouped(entries: Sequence[Mapping[str, Any]], how: str) -> list[str]:
    """Findings across splits, those that lead to the same earlier split in one text."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        earlier, later = entry["splits"]
        found.setdefault(earlier, []).append(f"{entry['rows']:,} of {entry['of']:,} {later}")
    return [f"{' and '.join(told)} rows {how} {earlier}" for earlier, told in found.items()]


def limits(near: Mapping[str, Any]) -> list[str]:
    """What the search for near duplicates has left out."""
    told = [
        f"{looked:,} of {rows:,} rows of {name} were searched, evenly spaced"
        for name, (looked, rows) in near["searched"].items()
        if looked < rows
    ]
    if near["crowded"]:
        told.append(f"{near['crowded']:,} rows have more lookalikes than were compared")
    return told
