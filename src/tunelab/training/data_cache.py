"""Prepared data of large files, kept for the next start: rows, splits and token ids, by what they were made from.

An entry is a folder whose name is a hash of everything that decides what is in it: the bytes of the files, the settings
of the data, the tokenizer, the template, the code.  So nothing in it can be stale; what differs has another name.
It appears whole, in one move, and one process makes it while others wait.  A process that uses an entry links its files
into a folder of its own, so that one that is cleared away meanwhile is not missed.
"""

import hashlib
import io
import os
import pickle
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

import tunelab
from tunelab.config.resource_paths import cache_directory, resolve_path
from tunelab.config.schema import RunConfig
from tunelab.data.data_sources import is_own_code
from tunelab.data.memory_map import MemoryMap, ScratchDir
from tunelab.data.mixture import list_sources
from tunelab.data.readers import MEGABYTE
from tunelab.data.template_rendering import load_template, writes_date
from tunelab.errors import DataError, TuneLabError
from tunelab.language.translation import current_language
from tunelab.runs import console
from tunelab.runs.atomic_files import write_atomically, write_json
from tunelab.runs.file_digests import sha256_file, sha256_files
from tunelab.runs.locks import exclusive_lock, is_locked
from tunelab.runs.stored_json import read_stored_json
from tunelab.tasks.base import Task
from tunelab.tasks.causal import CausalTask

PREFIX: Final = "prepared-"
MAX_BYTES: Final = 20 * 10**9  # of all entries together; the ones that were not used for longest go
ROOM_NEEDED: Final = 8  # bytes on disk for each byte of the files, at most
CODE: Final = ("data", "tasks", "training/components.py", "training/data_cache.py")  # what decides what is prepared
PACKAGES: Final = ("transformers", "tokenizers", "numpy", "jinja2")
UNUSED_KEYS: Final = ("cache", "workers", "keep_prepared")  # settings of the data that change nothing in them
# What an entry may hold: plain values and these; a pickle could name any function otherwise.
KNOWN_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "array": frozenset({"array", "_array_reconstructor"}),
    "functools": frozenset({"partial"}),
    "numpy": frozenset({"ndarray", "dtype"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "tunelab.data.arrow_store": frozenset({"ArrowRows", "_ArrowFile"}),
    "tunelab.data.batching": frozenset({"SourceRange"}),
    "tunelab.data.columns": frozenset({"ColumnUse", "drop_columns"}),
    "tunelab.data.data_sources": frozenset({"DataSplits", "Split"}),
    "tunelab.data.formats": frozenset({"rename_columns", "keep_columns"}),
    "tunelab.data.lazy_sequences": frozenset({"ConcatView", "MappedView", "SubsetView"}),
    "tunelab.data.examples": frozenset({"Example"}),
    "tunelab.data.readers": frozenset({"Locations"}),
    "tunelab.data.splits": frozenset({"DuplicateIndex", "HashedTexts"}),
    "tunelab.data.text_store": frozenset({"StoredTexts", "load_row"}),
    "tunelab.data.token_store": frozenset({"TokenStore"}),
    "tunelab.data.unknown_tokens": frozenset({"UnknownShare"}),
    "tunelab.errors": frozenset({"WarningNote"}),
}


@dataclass
class CacheEntry:
    """The place of prepared data, there already or not.

    Attributes:
        root: The folder of all entries.
        key: Hash of what the data are made from.
        report: The data report, once it is known.
    """

    root: Path
    key: str
    report: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """The folder of this entry."""
        return self.root / f"{PREFIX}{self.key}"

    def keep_report(self, report: dict[str, Any]) -> None:
        """Keep the data report beside the data."""
        self.report = report
        with suppress(OSError, TuneLabError):  # the next start makes it anew
            if self.folder.is_dir():
                write_json(self.folder / "report.json", report, exact=True)


def find_entry(
    settings: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase, limit: int | None, files: Sequence[Path]
) -> CacheEntry | None:
    """The place of the prepared data of a run; None where they are not kept, with a word on it where they should be.

    Kept are those of large local files, as `large_files` finds them, that only code of this package reads and encodes.
    """
    data = settings.data
    if not data.keep_prepared or not is_own_code(task) or not tokenizer.is_fast:
        return None
    root = Path(data.cache).expanduser() if data.cache else cache_directory() / "data"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        needed, free = ROOM_NEEDED * sum(map(os.path.getsize, files)), shutil.disk_usage(root).free
        if free < needed:
            raise OSError(f"{free / MEGABYTE:,.0f} MB are free there, and they may take {needed / MEGABYTE:,.0f}")
        ScratchDir(root)  # can anything be made there?
        return CacheEntry(root, entry_key(settings, task, tokenizer, limit, files))
    except (OSError, DataError) as fault:
        console.say(
            f"prepared data are not kept in {root}: {first_reason(fault)}. The next start prepares them anew; "
            "data.cache=FOLDER names another place, data.keep_prepared=false keeps none"
        )
        return None


def first_reason(fault: Exception) -> str:
    """Why a place cannot be used, in a few words."""
    return str(getattr(fault, "strerror", None) or fault)


def large_files(settings: RunConfig) -> list[Path]:
    """The local files of the data of which one at least is larger than what is held in memory; none otherwise."""
    files = []
    for source in list_sources(settings.data):
        for name in (source.data.train, source.data.validation, source.data.test):
            with suppress(OSError, TuneLabError):
                path = resolve_path(name) if name else None
                if name and path is None:
                    return []  # a set of a hub, which has a cache of its own
                files += [path] if path and path.is_file() else []
    bound = settings.data.in_memory * MEGABYTE
    return files if any(path.stat().st_size > bound for path in files) else []


def entry_key(
    settings: RunConfig, task: Task, tokenizer: PreTrainedTokenizerBase, limit: int | None, files: Sequence[Path]
) -> str:
    """A hash of everything that decides what the prepared data are."""
    data = settings.data.as_dict()
    made_from: dict[str, Any] = {
        "data": {name: value for name, value in sorted(data.items()) if name not in UNUSED_KEYS},
        "files": [sha256_file(path) for path in files],
        "seed": settings.seed,
        "fold": settings.cv.as_dict(),
        "limit": limit,
        "language": current_language(),  # of notes and reports
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "tokens": [type(tokenizer).__name__, tokenizer.special_tokens_map, tokenizer.model_input_names],
        "code": code_hash(),
        "packages": [version(name) for name in PACKAGES] + [platform.python_version()],
    }
    if isinstance(task, CausalTask):
        source = load_template(tokenizer, task.template_name).source
        made_from["template"] = source
        made_from["day"] = (task.template_date or date.today().isoformat()) if writes_date(source) else None
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:40]


def code_hash() -> str:
    """A hash of the code that prepares data."""
    root = Path(tunelab.__file__).parent
    places = [root / part for part in CODE]
    return sha256_files((file for p in places for file in (p.rglob("*.py") if p.is_dir() else [p])), root)


@contextmanager
def entry_lock(entry: CacheEntry) -> Iterator[None]:
    """Within it no other process prepares the same data; one that does is waited for."""
    place = entry.root / f"{PREFIX}{entry.key}.lock"
    if is_locked(place):
        console.say("another process prepares the same data: waiting for it")
    with exclusive_lock(place):
        yield


def load_entry(entry: CacheEntry) -> Any:
    """What an entry holds; None where it is not there, or is damaged, which is said and mended."""
    state = entry.folder / "state"
    if not state.is_file():
        return None
    try:
        scratch = ScratchDir(entry.root)
        for file in entry.folder.iterdir():
            if file.suffix == ".bin":
                os.link(file, scratch.path / file.name)
        value = _Unpickler(state, scratch).load()
        with suppress(FileNotFoundError):
            entry.report = read_stored_json(entry.folder / "report.json")
        os.utime(entry.folder)
    except Exception as fault:  # whatever a damaged file makes of itself
        console.say(f"prepared data in {entry.folder} cannot be used ({first_reason(fault)}); they are made anew")
        shutil.rmtree(entry.folder, ignore_errors=True)
        return None
    return value


def store_entry(entry: CacheEntry, value: Any) -> None:
    """Keep prepared data; where that fails the run goes on, and says so."""
    part = entry.folder.with_name(f".{entry.folder.name}.{os.getpid()}.part")
    try:
        part.mkdir()
        files: dict[Path, str] = {}
        raw = io.BytesIO()
        _Pickler(raw, files).dump(value)
        for path, name in files.items():
            os.link(path, part / name)
        write_atomically(part / "state", lambda file: file.write(raw.getbuffer()))
        part.rename(entry.folder)
        remove_oldest(entry.root, besides=entry.folder)
    except (OSError, TuneLabError, pickle.PicklingError) as fault:
        console.say(
            f"prepared data are not kept in {entry.root}: {first_reason(fault)}; the next start makes them anew"
        )
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_oldest(root: Path, besides: Path) -> None:
    """Remove the entries that were not used for longest, as far as all take more than `MAX_BYTES` together."""
    entries = sorted(root.glob(f"{PREFIX}*/"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    total = 0
    for folder in [besides, *(folder for folder in entries if folder != besides)]:
        total += sum(file.stat().st_size for file in folder.iterdir())
        if total > MAX_BYTES and folder != besides:
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


class _Pickler(pickle.Pickler):
    """Writes maps of files as the names of their files."""

    def __init__(self, sink: io.BytesIO, files: dict[Path, str]) -> None:
        super().__init__(sink, pickle.HIGHEST_PROTOCOL)
        self.files = files

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, ScratchDir):
            return ("scratch",)
        if isinstance(value, MemoryMap):
            name = self.files.setdefault(value.path, f"{len(self.files)}.bin")
            return ("map", name, value.path.stat().st_size)
        return None


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` wrote, and nothing else."""

    def __init__(self, path: Path, scratch: ScratchDir) -> None:
        super().__init__(io.BytesIO(path.read_bytes()))
        self.scratch = scratch
        self.maps: dict[str, MemoryMap] = {}

    def persistent_load(self, known: Any) -> Any:
        if known[0] == "scratch":
            return self.scratch
        _, name, size = known
        path = self.scratch.path / Path(name).name
        if path.stat().st_size != size:
            raise OSError(f"{name} is cut off")
        if name not in self.maps:
            self.maps[name] = MemoryMap(path, self.scratch)
        return self.maps[name]

    def find_class(self, module: str, name: str) -> Any:
        if name not in KNOWN_NAMES.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is nothing that prepared data hold")
        return super().find_class(module, name)
