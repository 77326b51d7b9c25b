"""An ensemble of predictions out of its folder: its members, and how they speak together."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunelab.assemble import make_task
from tunelab.ensemble.by_text import Sampling
from tunelab.ensemble.members import Place
from tunelab.ensemble.stacking import Stack
from tunelab.ensemble.writing import FILE
from tunelab.errors import ConfigError
from tunelab.record import RunFolder
from tunelab.restore import Trained, find_run, settings_of, weights_hash
from tunelab.settings import Run
from tunelab.tasks.base import Task


@dataclass
class Together:
    """Several runs that answer as one.

    Attributes:
        task: Of labels and numbers: in the scale that the members were combined in.
        members: In use, as they were when they were combined.
        weights: Of the members; None where they vote or are stacked.
        stack: The small model on top, where there is one.
        sampling: How members that write are asked when they vote.
        digest: A hash of what was fitted.
    """

    folder: RunFolder
    settings: Run
    task: Task
    members: list[Trained]
    weights: list[float] | None
    stack: Stack | None
    sampling: Sampling
    digest: str

    @property
    def note(self) -> str | None:
        """What the user should know of how members were restored, if anything."""
        return "\n".join(member.note for member in self.members if member.note) or None

    def identity(self) -> str:
        """A text that differs between any two ensembles."""
        return " ".join([self.digest, *(member.identity() for member in self.members)])


def together(place: str | Path) -> Together | None:
    """The ensemble of predictions in a folder; None where it holds one model, such as a run or a soup.

    Raises:
        ConfigError: If there is no run, or a member is gone or has other weights than when it was combined.
    """
    folder = find_run(place)
    if not (folder.root / FILE).is_file() or (folder.export / "config.json").is_file():
        return None
    text = (folder.root / FILE).read_text(encoding="utf-8")
    facts = json.loads(text)
    members = found_members(folder.root, facts["members"])
    settings = settings_of(folder)
    task = make_task(settings)
    task.restore(json.loads(folder.learned.read_text(encoding="utf-8")))
    weights = [entry["weight"] for entry in facts["members"]]
    top = facts.get("stack")
    return Together(
        folder=folder,
        settings=settings,
        task=task,
        members=members,
        weights=None if None in weights else [float(weight) for weight in weights],
        stack=None if top is None else Stack(np.array(top["weights"]), np.array(top["bias"]), top["strength"]),
        sampling=Sampling(**facts.get("sampling", {})),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def found_members(root: Path, entries: list[dict[str, Any]]) -> list[Trained]:
    """The members, restored.

    Raises:
        ConfigError: Naming every one that is gone or has changed.
    """
    places, faults = list[Place](), list[str]()
    for entry in entries:
        homes = [Path(entry["folder"]), root / entry["beside"]]
        home = next((one for one in homes if (one / "run.json").is_file()), None)
        if home is None:
            faults.append(f"its member {entry['run']} is gone: there is no run at {homes[0]}, nor at {homes[1]}")
            continue
        run = RunFolder(home)
        place = Place(run, None if entry["checkpoint"] is None else run.checkpoints / entry["checkpoint"])
        weights = place.checkpoint or run.best
        known = entry["weights_sha256"]
        if known is not None and weights.is_file() and weights_hash(weights) != known:
            faults.append(f"its member {entry['run']} has learned on since; combine anew with tunelab ensemble")
        places.append(place)
    if faults:
        raise ConfigError.listing(faults)
    return [place.restore() for place in places]
