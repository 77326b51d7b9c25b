"""Previews of large files, kept for the next time: what they show, by a hash of all that it was made from.

A preview is packages, data and a page; of large files the data are kept (`training.data_cache`), and this keeps what is
shown, so that the next preview of the same needs neither packages nor data.  Its name is a hash of the settings, the
bytes of every file that they name, the code, the packages, the language and the day: what differs has another name.
Loads no torch.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, TextIO

import tunelab
from tunelab.config.resource_paths import GENERATED_PREFIX, cache_directory, resolve_path
from tunelab.errors import TuneLabError
from tunelab.language.translation import current_language
from tunelab.runs.atomic_files import write_atomically
from tunelab.runs.file_digests import sha256_file, sha256_files

PREFIX: Final = "preview-"
MAX_KEPT: Final = 100  # the ones that were not looked at for longest go
MAX_FOLDER_FILES: Final = 1000  # of a model; a folder with more is no model
WEIGHT_SUFFIXES: Final = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".ckpt"})
LARGE_WEIGHTS: Final = 2**25  # bytes
OWN_PACKAGES: Final = ("tunelab.", "torch.")  # whose code is part of the name, by its bytes or its version
CODE_KEYS: Final = ("_target_", "task", "format")  # settings that may name code
MODEL_KEYS: Final = (".model.path", ".model.tokenizer")
SCRATCH: Final = "scratch"  # path of a model that is made here
OWN_VARIABLES: Final = "TUNELAB_"  # how those begin that this package reads


@dataclass(frozen=True)
class PreviewContent:
    """All that a preview shows, as plain values.

    Attributes:
        name: Of the run, for the page.
        counts: Split to name of a count to its value.
        details: Titles, each with its lines.
        heading: Of the records.
        records: Of each its title, its sequences as texts with their kind, their names, and what it is to learn.
        page: The page.
    """

    name: str
    counts: dict[str, dict[str, int | float]]
    details: list[tuple[str, list[str]]]
    heading: str
    records: list[tuple[str, list[list[tuple[str, str]]], tuple[str, ...], str]]
    page: str


@dataclass(frozen=True)
class PreviewPlace:
    """Where a preview is kept, there already or not."""

    file: Path

    def read(self) -> PreviewContent | None:
        """What is kept; None where nothing is, or it is damaged."""
        try:
            digest, _, body = self.file.read_bytes().partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() != digest:
                return None
            preview = PreviewContent(**json.loads(body))
            os.utime(self.file)
        except (OSError, ValueError, TypeError):
            return None
        return preview

    def keep(self, preview: PreviewContent) -> None:
        """Keep a preview; where that fails the next one is made anew."""
        body = json.dumps(asdict(preview)).encode()
        content = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        with suppress(OSError, TuneLabError):
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self.file, lambda file: file.write(content), len(content), lasting=False)
            self.file.chmod(0o600)  # it holds texts of the data
            kept = sorted(self.file.parent.glob(f"{PREFIX}*.json"), key=lambda file: file.stat().st_mtime)
            for file in kept[:-MAX_KEPT]:
                file.unlink(missing_ok=True)


def preview_place(values: Mapping[str, Any], options: Sequence[object]) -> PreviewPlace | None:
    """Where the preview of a config is kept; None where it is not known what it is made from.

    Args:
        values: The resolved config.
        options: Of the command, as far as they change what is shown.
    """
    data = values.get("data")
    if not isinstance(data, Mapping) or not data.get("keep_prepared") or data.get("streaming") or values.get("resume"):
        return None
    leaves = [*plain_leaves("", {**values, "data": {**data, "cache": None}})]
    if any(names_foreign_code(key, value) for key, value in leaves):
        return None
    try:
        if any(names_hub_model(key, value) for key, value in leaves):
            return None
        files = [(value, content_hash(value)) for _, value in leaves if isinstance(value, str)]
        made_from = [
            *(leaves, files, options, current_language(), date.today().isoformat(), installed_packages(), code_hash()),
            *(platform.python_version(), platform.machine(), str(tunelab.__file__)),
            sorted((name, value) for name, value in os.environ.items() if name.startswith(OWN_VARIABLES)),
        ]
        cache = data.get("cache")
        root = Path(cache).expanduser() if cache else cache_directory() / "data"
    except (OSError, TuneLabError, RuntimeError, ValueError):
        return None
    return PreviewPlace(root / f"{PREFIX}{hashlib.sha256(repr(made_from).encode()).hexdigest()[:40]}.json")


def plain_leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value of a config that holds no others, with its dotted name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from plain_leaves(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from plain_leaves(f"{name}.{place}", inner)
    else:
        yield name, value


def names_foreign_code(key: str, value: Any) -> bool:
    """Whether a setting names code that is not of this package or of torch, so that it is not known what it does."""
    named = isinstance(value, str) and key.rpartition(".")[2] in CODE_KEYS and "." in value
    return named and not value.startswith(OWN_PACKAGES)


def names_hub_model(key: str, value: Any) -> bool:
    """Whether a setting names a model or tokenizer that does not lie here, so that its files are not known."""
    return key in MODEL_KEYS and value not in (None, SCRATCH) and resolve_path(str(value)) is None


def content_hash(text: str) -> str | None:
    """A hash of the bytes of the file or folder that a setting names; None where it names none.

    Raises:
        OSError: If it is not known what stands there.
    """
    if text.startswith(GENERATED_PREFIX):
        raise OSError(f"{text} is written when it is first read")
    path = resolve_path(text) if text else None
    if path is None:
        return None
    return folder_hash(path) if path.is_dir() else file_hash(path)


def file_hash(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        OSError: If it is a pipe or a device, which can be read once or never ends.
    """
    if not path.is_file():
        raise OSError(f"{path} is no file")
    return sha256_file(path)


def folder_hash(path: Path) -> str:
    """A hash of all files of a model's folder; large weights, which no preview reads, by name and size.

    Raises:
        OSError: If it holds more files than a model does.
    """
    files: list[Path] = []
    for parent, _, names in os.walk(path, followlinks=True):
        files += [Path(parent, name) for name in names]
        if len(files) > MAX_FOLDER_FILES:
            raise OSError(f"{path} holds too many files")
    held = [(str(file.relative_to(path)), weight_size(file) or file_hash(file)) for file in sorted(files)]
    return hashlib.sha256(repr(held).encode()).hexdigest()


def weight_size(file: Path) -> int | None:
    """The bytes of a file of weights; None of any other, or a small one."""
    size = file.stat().st_size if file.suffix in WEIGHT_SUFFIXES else 0
    return size if size >= LARGE_WEIGHTS else None


def code_hash() -> str:
    """A hash of the code and the texts of this package."""
    root, skipped = Path(tunelab.__file__).parent, {*WEIGHT_SUFFIXES, ".pyc"}
    return sha256_files((file for file in root.rglob("*") if file.is_file() and file.suffix not in skipped), root)


def installed_packages() -> list[str]:
    """Every installed package with its version, as the folders of their metadata are named."""
    return sorted(
        name
        for folder in dict.fromkeys(sys.path)
        if os.path.isdir(folder)
        for name in os.listdir(folder)
        if name.endswith((".dist-info", ".egg-info", ".egg-link"))
    )


@contextmanager
def counted_output() -> Iterator[list[int]]:
    """Within it the characters are counted that are written to the terminal; yields a list of their number alone."""
    count, streams = [0], (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = (_CountedStream(stream, count) for stream in streams)
    try:
        yield count
    finally:
        sys.stdout, sys.stderr = streams


class _CountedStream:
    """A stream whose written characters are counted; all else is that of the stream."""

    def __init__(self, stream: TextIO, count: list[int]) -> None:
        self.stream, self.count = stream, count

    def write(self, text: str) -> int:
        """Write a text, and count it."""
        self.count[0] += len(text)
        return self.stream.write(text)

    def writelines(self, texts: Sequence[str]) -> None:
        """Write texts, and count them."""
        for text in texts:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
