"""Sources of a data mixture with their weights, as `data.mix` names them.  Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isfinite
from pathlib import PurePath
from typing import Any

SOURCE_OVERRIDES = (
    "encoding",
    "on_bad",
    "quoting",
    "header",
    "limit",
    "format",
    "columns",
    "split",
)  # else as in the data block
SOURCE_KEYS = ("train", "validation", "test", "weight", *SOURCE_OVERRIDES)
SOURCE_NAME = re.compile(r"[^\s/=,:]+")  # part of a score's name: val/NAME/loss
MAX_WEIGHT = 1000.0


@dataclass(frozen=True)
class SourceConfig:
    """One source of a mix.

    Attributes:
        name: As scores and reports call it; empty for the only source of a run without a mix.
        weight: How often an epoch sees each of its rows.
        settings: The `data` block as it holds for this source.
        columns: Name of a column in the run -> its name in this source; empty where they agree.
        format: Layout of its records, where the run knows several; "auto" tells it by the columns.
    """

    name: str
    settings: Mapping[str, Any]
    weight: float = 1.0
    columns: Mapping[str, str] = field(default_factory=dict)
    format: str = ""


def list_sources(data: Mapping[str, Any]) -> list[SourceConfig]:
    """The sources of a run: those of `data.mix`, else the one that the `data` block itself names.

    Args:
        data: The `data` block, without faults that `mix_faults` finds.
    """
    if data.get("mix") is None:
        return [SourceConfig("", data)]
    return [
        SourceConfig(
            name,
            {**data, "validation": None, "test": None, "run_columns": data.get("columns"), **entry}
            | {"split": {**data["split"], **(entry.get("split") or {})}},
            float(entry.get("weight", 1.0)),
            {ours: theirs for ours, theirs in (entry.get("columns") or {}).items() if theirs},
            str(entry.get("format") or data["format"]) if "format" in data else "",
        )
        for name, entry in mixture_entries(data["mix"]).items()
    ]


def mixture_entries(given: Any) -> dict[str, dict[str, Any]]:
    """`data.mix` in its long form: name -> keys.  A list of files names each source after its file."""
    if isinstance(given, Mapping):
        return {str(name): {"train": entry} if isinstance(entry, str) else dict(entry) for name, entry in given.items()}
    return {source_name_from_file(file): {"train": file} for file in given}


def source_name_from_file(file: str) -> str:
    """A source's name after its file or hub set.

    Example:
        >>> source_name_from_file("texts/my code.jsonl"), source_name_from_file("owner/name:train")
        ('my_code', 'owner_name_train')
    """
    path = PurePath(file)
    return "_".join(SOURCE_NAME.findall(path.stem if path.suffix else file)) or "source"


def mixture_faults(data: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with `data.train` and `data.mix`, each with a way out."""
    given, train = data.get("mix"), data.get("train")
    alone = [name for name in ("train", "validation", "test") if data.get(name) not in (None, "???")]
    if given is None:
        if train in (None, "???"):
            files = "(json, jsonl, csv, tsv, parquet)"
            return [f"data.train is not set; name the file to learn from: data.train=FILE {files}"]
        return []
    faults = []
    if alone:
        named = ", ".join(f"data.{name}={data[name]}" for name in alone)
        nulls = " ".join(f"data.{name}=null" for name in alone)
        faults.append(f"data.mix is set and so is {named}; each source of a mix names its own files: set {nulls}")
    if not isinstance(given, Mapping | list) or not given:
        return [*faults, f"data.mix={given!r} names no sources; give [a.jsonl,b.jsonl] or {{a: {{train: a.jsonl}}}}"]
    if isinstance(given, list):
        if odd := [file for file in given if not isinstance(file, str)]:
            return [*faults, f"data.mix={odd!r}: a list holds files; sources with keys need names: {{a: {{...}}}}"]
        names = [source_name_from_file(file) for file in given]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            faults.append(
                f"data.mix names {' and '.join(twice)} twice; name sources yourself: {{one: FILE, other: FILE}}"
            )
        return faults
    for name, entry in given.items():
        faults += source_faults(str(name), {"train": entry} if isinstance(entry, str) else entry)
    return faults


def source_faults(name: str, entry: Any) -> list[str]:
    """What is wrong with one source."""
    place = f"data.mix.{name}"
    faults = []
    if not SOURCE_NAME.fullmatch(name):
        faults.append(f"{place}: a name becomes part of val/NAME/loss; use letters, digits, - and _")
    if not isinstance(entry, Mapping):
        return [*faults, f"{place}={entry!r} is no source; give a file, or {{train: FILE, weight: 1.0}}"]
    for key in entry:
        if key not in SOURCE_KEYS:
            near = get_close_matches(str(key), SOURCE_KEYS, 1)
            faults.append(
                f"{place}.{key} is no key of a source; "
                + (f"did you mean {near[0]}?" if near else f"there are {', '.join(SOURCE_KEYS)}")
            )
    if not isinstance(entry.get("train"), str) or entry["train"] == "???":
        faults.append(f"{place}.train is not set; name the file to learn from")
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not isfinite(weight):
        faults.append(f"{place}.weight={weight!r} is not a number")
    elif not 0 < weight <= MAX_WEIGHT:
        faults.append(f"{place}.weight={weight} is out of range; it must be above 0 and at most {MAX_WEIGHT:g}")
    if not isinstance(entry.get("columns") or {}, Mapping):
        faults.append(f"{place}.columns={entry['columns']!r}; give names as {{ours: theirs}}")
    if not isinstance(entry.get("split") or {}, Mapping):
        faults.append(f"{place}.split={entry['split']!r}; give shares as {{validation: 0.1, test: 0.1}}")
    return faults
