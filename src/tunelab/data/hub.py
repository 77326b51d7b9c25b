"""Rows of a data set of the Hugging Face hub, named `owner/name:split`."""

import json
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

from tunelab.data.bad_rows import Fault, Row
from tunelab.data.parquet import ROWS, checked
from tunelab.errors import DataError

NAME = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)(?::(?P<split>[\w.\[\]:%+-]+))?")
SPLIT = "train"  # where the name gives none


def is_hub_name(text: str) -> bool:
    """Whether `text` has the form `owner/name[:split]` or `name[:split]`."""
    return NAME.fullmatch(text) is not None


def hub_set(source: str) -> Any:
    """The data set, which `datasets` keeps in memory-mapped files.  One that needs a script it refuses by itself.

    Raises:
        DataError: If the set cannot be loaded, for want of a network or otherwise.
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise DataError(f"'{source}' is neither a file here nor a hub data set such as owner/name:split")
    name, split = match["id"], match["split"] or SPLIT
    try:
        from datasets import load_dataset  # seconds to load, and most runs read files

        return load_dataset(name, split=split)
    except Exception as error:  # the hub client raises errors of many libraries, and all mean the same here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"'{source}' is no file here, and loading it from the hub as data set {name}, split {split}, "
            f"failed: {type(error).__name__}: {reason}. Check the name and the network, or name a local file"
        ) from error


def hub_rows(dataset: Any) -> Iterator[tuple[int, Row | Fault]]:
    """Rows with their numbers from 1."""
    for start in range(0, len(dataset), ROWS):
        rows = dataset.select(range(start, min(start + ROWS, len(dataset)))).to_list()
        for number, row in enumerate(rows, start=start + 1):
            yield number, checked(row)


def rows_sha256(rows: Iterable[Row]) -> str:
    """Fingerprint of rows that have no file: of their JSON, keys sorted, one row a line."""
    digest = sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()
