"""What lies at a path: a run, a study, or neither."""

from collections.abc import Sequence
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.record import RunFolder

STUDY = ("trials.jsonl", "study.json", "search.json")  # any of them makes a study
MOST_SEEN = 3  # runs below a folder that a message names


def is_study(path: Path) -> bool:
    """Whether a search wrote this folder."""
    return any((path / name).is_file() for name in STUDY)


def is_run(path: Path) -> bool:
    """Whether a training wrote this folder; one that never got to its card counts, for its report says so."""
    folder = RunFolder(path)
    return any(file.is_file() for file in (folder.card, folder.metrics, folder.curves, folder.predictions))


def check_sources(paths: Sequence[Path]) -> None:
    """Refuse what is neither a run nor a study, all at once.

    Raises:
        ConfigError: Naming each such path, what is there, and what to give instead.
    """
    faults = [f"{path} {wrong(path)}" for path in paths if not is_run(path) and not is_study(path)]
    if len(set(paths)) < len(paths):
        faults.append("a path is there twice, and nothing differs from itself; give each once")
    if faults:
        raise ConfigError("cannot report on this:\n" + "\n".join(f"  - {fault}" for fault in faults))


def wrong(path: Path) -> str:
    """Why a path cannot be reported on, and what may be meant."""
    if not path.exists():
        return "does not exist; give a run folder or a study folder, as training and search print them"
    if not path.is_dir():
        return f"is a file, not a folder; did you mean {path.parent}?"
    below = sorted(found for found in path.iterdir() if found.is_dir() and (is_run(found) or is_study(found)))
    if below:
        named = " ".join(str(found) for found in below[:MOST_SEEN])
        return f"holds {len(below)} runs or studies but is none itself; give them one by one: {named}"
    return "is neither a run (no run.json, metrics.json or metrics.csv) nor a study (no trials.jsonl)"
