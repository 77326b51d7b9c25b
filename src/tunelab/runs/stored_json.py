"""JSON that a run or a study left behind: objects and rows of a known shape, or one sentence that names the fault."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tunelab.config.stored_files import MAX_REASON, RUN_FILE_ADVICE, UnreadableFileError, read_stored_text
from tunelab.errors import first_line
from tunelab.language.translation import message, translate

Shape = Mapping[str, tuple[type, ...]]  # key of an object to the types that its value may have


def parse_stored_json(text: str, name: object, advice: str) -> Any:
    """The value of a JSON text.

    Args:
        text: The text.
        name: Where it stands, for the message.
        advice: What to do where it is damaged.

    Raises:
        UnreadableFileError: If it is empty, cut off, no JSON, or nested without end.
    """
    if not text.strip():
        raise UnreadableFileError(
            translate("{name} is empty, as after a full disk or a power cut; {advice}", name=name, advice=advice)
        )
    try:
        return json.loads(text)
    except RecursionError as fault:
        raise UnreadableFileError(
            translate("{name} is damaged: it is nested too deeply; {advice}", name=name, advice=advice)
        ) from fault
    except ValueError as fault:
        cut = isinstance(fault, json.JSONDecodeError) and not text[fault.pos :].strip()
        raise UnreadableFileError(
            translate(
                "{name} is {value}: {fault}; {advice}",
                name=name,
                value="cut off" if cut else "damaged",
                fault=first_line(fault)[:MAX_REASON],
                advice=advice,
            )
        ) from fault


def read_stored_json(
    path: Path, advice: str = RUN_FILE_ADVICE, *, shape: Shape | None = None, required: Collection[str] = ()
) -> dict[str, Any]:
    """The JSON object of a file of ours.

    Args:
        path: The file.
        advice: What to do where it is damaged.
        shape: Types of the values of known keys.
        required: Keys that it must have.

    Raises:
        FileNotFoundError: If nothing is there.
        UnreadableFileError: If it is damaged or of another shape; names every such key.
    """
    value = parse_stored_json(read_stored_text(path, advice), path, advice)
    if not isinstance(value, dict):
        raise UnreadableFileError(
            translate(
                "{path} holds {value} where a JSON object belongs; {advice}",
                path=path,
                value=json_kind(value),
                advice=advice,
            )
        )
    if faults := [translate("it has no {key}", key=key) for key in required if key not in value] + shape_faults(
        value, shape or {}
    ):
        raise UnreadableFileError(
            translate(
                "{path} is not as it was written: {names}; {advice}", path=path, names="; ".join(faults), advice=advice
            )
        )
    return value


def read_stored_rows(path: Path, advice: str = RUN_FILE_ADVICE) -> list[dict[str, Any]]:
    """The rows of a file of one JSON object per line; lines end at a line feed only.

    Raises:
        FileNotFoundError: If nothing is there.
        UnreadableFileError: If a line is cut off or no object; names it.
    """
    text = read_stored_text(path, advice)
    rows = [
        parse_stored_json(line, translate("{path} line {n}", path=path, n=n), advice)
        for n, line in enumerate(split_lines(text), start=1)
    ]
    odd = next((number for number, row in enumerate(rows, start=1) if not isinstance(row, dict)), None)
    if odd is not None:
        kind = json_kind(rows[odd - 1])
        raise UnreadableFileError(
            translate(
                "{path} line {odd} holds {kind} where a JSON object belongs; {advice}",
                path=path,
                odd=odd,
                kind=kind,
                advice=advice,
            )
        )
    return rows


def split_lines(text: str) -> list[str]:
    """The lines of a text, without a last empty one."""
    return text.removesuffix("\n").split("\n") if text else []


def shape_faults(value: Mapping[str, Any], shape: Shape) -> list[str]:
    """The keys whose values are of another type."""
    faults = []
    for key, types in shape.items():
        if key in value and (not isinstance(value[key], types) or (isinstance(value[key], bool) and bool not in types)):
            expected = " or ".join(dict.fromkeys(KIND_NAMES[one] for one in types))
            faults.append(
                translate(
                    "{key} is {value} where {expected} belongs", key=key, value=json_kind(value[key]), expected=expected
                )
            )
    return faults


KIND_NAMES: dict[type, str] = {
    **{dict: message("an object"), list: "a list", str: "a text", bool: message("true or false"), type(None): "null"},
    **{int: "a number", float: "a number"},
}


def json_kind(value: Any) -> str:
    """The kind of a JSON value, in words."""
    return KIND_NAMES[type(value)]
