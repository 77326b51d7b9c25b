"""The runs and searches of a folder, read in little: what a table shows of each; links are never followed.

The folder may be a stranger's: each file is read within bounds, or named as damaged.
"""

import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunelab.config.stored_files import SHAPE_FAULTS, STUDY_FILE_ADVICE
from tunelab.errors import TuneLabError, first_line, visible_text
from tunelab.language.translation import translate
from tunelab.report.run_reader import is_run_folder, is_study_folder
from tunelab.runs.run_dir import MANIFEST_SHAPE, RUN_FILES, RunDirectory
from tunelab.runs.stored_json import read_stored_json
from tunelab.runs.study_folder import StudyFolder
from tunelab.tasks.registry import DESCRIPTIONS, TaskDescription

MAX_DEPTH = 6  # folders within folders
MAX_FOLDERS = 20_000  # folders that one scan enters
MAX_ENTRIES = 2_000  # runs and searches of one page
MAX_BYTES = 4 * 2**20  # of a file that the table reads
MAX_CURVE_BYTES = 32 * 2**20  # of the curves of a run
MAX_REPORT_BYTES = 64 * 2**20  # of all files that a report on the page reads
MAX_TEXT = 300  # characters of a cell
BEATING_SECONDS = 90.0  # age of a heartbeat up to which its search counts as running
STUDY_FILES = ("trials.jsonl", "study.json", "search.json", "confirm")
SKIPPED = frozenset({"checkpoints", "export", "report", "wandb", "engines"})  # of a run or a search


@dataclass(frozen=True)
class BoardEntry:
    """A run or a search of the folder.

    Attributes:
        path: Below the folder, with slashes.
        kind: `run` or `search`.
        status: As its manifest says; `stopped` where that says running and no process is, `damaged`, `refused`.
        task: Of a run.
        model: The base model of a run.
        score: Name of the monitored score or the objective.
        value: Its best value.
        test: The first headline score on the test split, by name and value.
        steps: Optimizer steps, or trials of a search.
        seconds: Of training.
        started: When it began.
        changed: What was typed.
        fault: Why it cannot be read.
    """

    path: str
    kind: str
    status: str
    task: str = ""
    model: str = ""
    score: str = ""
    value: float | None = None
    test: tuple[str, float | None] = ("", None)
    steps: int | None = None
    seconds: float | None = None
    started: str = ""
    changed: str = ""
    fault: str = ""


@dataclass
class FolderScan:
    """What a folder holds.

    Attributes:
        entries: Runs and searches, the newest first.
        notes: What was left out, in sentences.
    """

    entries: list[BoardEntry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Board:
    """A folder that is looked at again and again; a file is read once more only when it has changed."""

    def __init__(self, root: Path) -> None:
        """Take a folder; its own path may hold links, nothing below it may."""
        self.root, self.typed = Path(os.path.realpath(root)), str(root)
        self._known: dict[str, tuple[tuple[Any, ...], BoardEntry]] = {}

    def scan(self, inside: str = "") -> FolderScan:
        """The runs and searches below the folder, or the trials of one search in it.

        Raises:
            LookupError: If `inside` is no folder of it.
        """
        start, result, unnamed = self.folder(inside), FolderScan(), list[str]()
        left = MAX_FOLDERS
        for path in self._walk(start, MAX_DEPTH, unnamed):
            left -= 1
            if left <= 0 or len(result.entries) >= MAX_ENTRIES:
                result.notes.append(
                    translate(
                        "Only the first {count:,} [run is|runs are] listed; open a smaller folder.",
                        count=len(result.entries),
                    )
                )
                break
            if not (inside and path == start and is_study_folder(path)):
                result.entries += self._entry(path)
        if unnamed:
            listed = ", ".join(visible_text(os.fsencode(name).decode(errors="replace")) for name in unnamed[:3])
            result.notes.append(
                translate(
                    "{count} [folder is|folders are] left out, as only names in UTF-8 can be linked to: {names}",
                    count=len(unnamed),
                    names=listed,
                )
            )
        result.entries.sort(key=lambda entry: (entry.started, entry.path), reverse=True)
        return result

    def folder(self, name: str) -> Path:
        """A folder below the root by its relative name.

        Raises:
            LookupError: If it leaves the root, passes a link, or is no folder.
        """
        if "\0" in name or "\\" in name or os.path.isabs(name):
            raise LookupError(name)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        path = self.root
        for part in parts:
            path = path / part
            try:
                mode = path.lstat().st_mode
            except (OSError, ValueError):
                raise LookupError(name) from None
            if part == ".." or not stat.S_ISDIR(mode):
                raise LookupError(name)
        return path

    def reportable(self, name: str) -> Path:
        """The folder of a run or a search that a report may be made of.

        Raises:
            LookupError: If there is none.
            TuneLabError: If it holds links, or files larger than a page should read.
        """
        path = self.folder(name)
        if not (is_run_folder(path) or is_study_folder(path)):
            raise LookupError(name)
        for folder in {path, path.parent} if path != self.root else {path}:
            if link := linked_file(folder):
                raise TuneLabError(
                    translate(
                        "{value} is not opened: {link} is a link, which may lead outside the folder",
                        value=name or ".",
                        link=link,
                    )
                )
        size = sum(file_size(path / file) for file in (*RUN_FILES, *STUDY_FILES))
        if size > MAX_REPORT_BYTES:
            command = f"tunelab report {path}"
            raise TuneLabError(
                translate(
                    "{value} has {size:,.0f} MB of results, too much to open here; {command}",
                    value=name or ".",
                    size=size / 2**20,
                    command=command,
                )
            )
        return path

    def running(self, scan: FolderScan) -> Iterator[tuple[str, list[dict[str, float]], str]]:
        """Path, curves and monitored score of each run that is running, trials of searches too."""
        for entry in scan.entries:
            names = [entry.path]
            if entry.kind == "search" and entry.status == "running":
                inner = self.scan(entry.path).entries
                names = [one.path for one in inner if one.status == "running"]
            elif entry.status != "running":
                continue
            for name in names:
                yield name, *self._curves(RunDirectory(self.root / name))

    def _curves(self, run: RunDirectory) -> tuple[list[dict[str, float]], str]:
        """The curves of a run and its monitored score; empty before the first step, or where they cannot be read."""
        if not 0 < file_size(run.curves) <= MAX_CURVE_BYTES:
            return [], ""
        try:
            return run.read_curves(), monitor_of(run)
        except (OSError, TuneLabError, *SHAPE_FAULTS):
            return [], ""

    def _walk(self, folder: Path, depth: int, unnamed: list[str]) -> Iterator[Path]:
        """A folder and those below it; none below a run, and of a search none below where it is not the first.

        Args:
            folder: Where to begin.
            depth: How many folders within folders.
            unnamed: Takes the names of folders that are no text, which are left out.
        """
        yield folder
        own = is_run_folder(folder) or is_study_folder(folder)
        if depth <= 0 or (own and depth < MAX_DEPTH):
            return
        try:
            with os.scandir(folder) as listing:
                names = sorted(
                    entry.name
                    for entry in listing
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                )
        except OSError:
            return
        for name in names:
            if not is_text(name):
                unnamed.append(name)
            elif not (own and name in SKIPPED):
                yield from self._walk(folder / name, depth - 1, unnamed)

    def _entry(self, path: Path) -> list[BoardEntry]:
        """The entry of a folder; none where it is neither run nor search."""
        study = is_study_folder(path)
        if not study and not is_run_folder(path):
            return []
        name = path.relative_to(self.root).as_posix()
        if link := linked_file(path):
            return [
                BoardEntry(
                    name, "search" if study else "run", "refused", fault=translate("{link} is a link", link=link)
                )
            ]
        files = [path / file for file in ("run.json", "metrics.json", "run.lock", *STUDY_FILES[:3])]
        stamp = (*map(file_stamp, files), is_beating(path) if study else is_held(path))
        if len(self._known) > 4 * MAX_ENTRIES:  # of folders that are gone
            self._known.clear()
        known = self._known.get(name)
        if known is None or known[0] != stamp:
            known = self._known[name] = (stamp, read_search(name, path) if study else read_run(name, path))
        return [known[1]]


def is_text(name: str) -> bool:
    """Whether a file's name is text, so that a page can link to it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def linked_file(folder: Path) -> str:
    """The name of a file of a run or a search that is a link; empty where there is none."""
    names = (*RUN_FILES, *STUDY_FILES, "run.lock")
    return next((name for name in names if name != "export" and (folder / name).is_symlink()), "")


def file_size(path: Path) -> int:
    """The bytes of a file; 0 where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def is_held(path: Path) -> bool:
    """Whether a live process writes to the run."""
    if not 0 < file_size(path / "run.lock") < 4096:
        return False
    try:
        return RunDirectory(path).is_held()
    except (OSError, *SHAPE_FAULTS):
        return False


def is_beating(path: Path) -> bool:
    """Whether an engine of the search is alive."""
    folder = StudyFolder(path).heartbeats
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        times = [entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(folder)]
    except OSError:
        return False
    return any(time.time() - changed < BEATING_SECONDS for changed in times)


def small_object(path: Path, **how: Any) -> dict[str, Any]:
    """The JSON object of a small file; empty where there is none.

    Raises:
        TuneLabError: If it is damaged, no file, or larger than such a file is.
    """
    if not path.exists():
        return {}
    if file_size(path) > MAX_BYTES:
        raise TuneLabError(
            translate(
                "{name} has {path:,.0f} MB, which no such file of ours has",
                name=path.name,
                path=file_size(path) / 2**20,
            )
        )
    return read_stored_json(path, **how)


def read_run(name: str, path: Path) -> BoardEntry:
    """The entry of a run."""
    folder = RunDirectory(path)
    try:
        manifest = small_object(folder.manifest, shape=MANIFEST_SHAPE)
        scores = small_object(folder.metrics)
        status = str(manifest.get("status") or "unknown")
        config: Mapping[str, Any] = manifest.get("config") or {}
        data, model = config.get("data"), manifest.get("model") or {}
        task = str(data.get("task") or "") if isinstance(data, Mapping) else ""
        best = manifest.get("best") or {}
        heads = DESCRIPTIONS.get(task, TaskDescription()).headline_scores
        head = next((one for one in heads if number(scores.get(f"test/{one}")) is not None), "")
        return BoardEntry(
            name,
            "run",
            "stopped" if status == "running" and not is_held(path) else cell(status),
            cell(task),
            cell(model.get("path")),
            cell(best.get("monitor")),
            number(best.get("value")),
            (head, number(scores.get(f"test/{head}"))),
            whole_number(best.get("step")),
            number(manifest.get("seconds")),
            cell(manifest.get("started")),
            cell(" ".join(map(str, manifest.get("overrides") or ()))),
        )
    except (OSError, TuneLabError, *SHAPE_FAULTS) as fault:
        return BoardEntry(name, "run", "damaged", fault=cell(first_line(fault)))


def read_search(name: str, path: Path) -> BoardEntry:
    """The entry of a search."""
    folder = StudyFolder(path)
    try:
        summary = small_object(folder.summary, advice=STUDY_FILE_ADVICE)
        request = small_object(folder.study_config, advice=STUDY_FILE_ADVICE)
        counts = summary.get("counts") or {}
        typed = request.get("arguments") or summary.get("fixed") or ()
        objectives = summary.get("objectives") or request.get("objectives") or ("",)
        done = sum(int(many) for many in counts.values() if isinstance(many, int))
        begun = file_stamp(folder.study_config) or file_stamp(folder.trials)
        return BoardEntry(
            name,
            "search",
            "running" if is_beating(path) else "finished" if done else "unknown",
            score=cell(objectives[0]),
            value=number(summary.get("best_value")),
            steps=done or None,
            started=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(begun[1] / 1e9)) if begun else "",
            changed=cell(" ".join(map(str, typed))),
        )
    except (OSError, TuneLabError, *SHAPE_FAULTS) as fault:
        return BoardEntry(name, "search", "damaged", fault=cell(first_line(fault)))


def monitor_of(folder: RunDirectory) -> str:
    """The monitored score of a run that has validated once; empty before."""
    best = small_object(folder.manifest).get("best")
    return cell(best.get("monitor")) if isinstance(best, Mapping) else ""


def cell(value: object) -> str:
    """A value of a file as the text of a cell; empty for none."""
    return "" if value is None else str(value)[:MAX_TEXT]


def number(value: object) -> float | None:
    """A finite number of a file; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def whole_number(value: object) -> int | None:
    """A count of a file; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else None
