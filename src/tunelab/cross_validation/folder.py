"""The folder of a cross-validation: one run folder for each fold, and what they say together."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.atomic import write_json, write_text
from tunelab.cross_validation.spread import Spread
from tunelab.data.places import locate
from tunelab.errors import ConfigError
from tunelab.json_lines import Row
from tunelab.lock import FolderLock
from tunelab.record import RunFolder
from tunelab.run_card import sha256_file


@dataclass(frozen=True)
class FoldsFolder:
    """The files of a cross-validation."""

    root: Path

    @property
    def summary(self) -> Path:
        """Mean, spread and the value of each fold for every score, and how the folds came to be."""
        return self.root / "cv.json"

    @property
    def table(self) -> Path:
        """One line for each fold, then mean and standard deviation; CSV."""
        return self.root / "cv.csv"

    @property
    def lock(self) -> FolderLock:
        """Held by the process that starts the folds."""
        return FolderLock(self.root / "cv.lock")

    def fold(self, number: int) -> RunFolder:
        """The run folder of a fold."""
        return RunFolder(self.root / f"fold_{number}")

    def write(self, facts: Mapping[str, Any], rows: Sequence[Row], found: Mapping[str, Spread]) -> None:
        """Leave both files.

        Args:
            facts: How the folds came to be.
            rows: Of the table, one for each fold.
            found: Every score over the folds.
        """
        scores = {name: {**spread.told(), "folds": list(spread.values)} for name, spread in found.items()}
        write_json(self.summary, {**facts, "scores": scores, "runs": list(rows)})
        columns = [*rows[0], *found]
        lines: list[dict[str, Any]] = [
            {**row, **{name: spread.values[place] for name, spread in found.items()}} for place, row in enumerate(rows)
        ]
        lines.append({"fold": "mean", **{name: spread.mean for name, spread in found.items()}})
        lines.append({"fold": "std", **{name: spread.std for name, spread in found.items()}})
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        write_text(self.table, text.getvalue())


def refuse_others(folder: RunFolder, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on beside a fold that was trained with other settings or on other data.

    Args:
        folder: Of the fold.
        wanted: Its settings as they are now; places of the run and what it logs may differ.

    Raises:
        ConfigError: Naming the settings and files.
    """
    card = folder.read_card()
    before, now = flat(card.get("config") or {}), flat(wanted)
    changed = [name for name in now | before if name.split(".")[0] not in FREE and before.get(name) != now.get(name)]
    told = [f"{name}={now.get(name)} was {before.get(name)}" for name in changed]
    for file, digest in ((card.get("data") or {}).get("files") or {}).items():
        place = locate(file)
        if place is not None and place.is_file() and digest and sha256_file(place) != digest:
            told.append(f"{file} has changed")
    if told:
        raise ConfigError(
            f"{folder.root} was trained otherwise: {'; '.join(told[:8])}. Folds of different trainings have no mean; "
            "give another hydra.run.dir for a new cross-validation"
        )


FREE = ("logger", "callbacks", "eval", "test", "save", "resume", "name", "trial", "search")


def flat(block: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in block.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, Mapping) and value else {f"{above}{name}": value}
    return found
