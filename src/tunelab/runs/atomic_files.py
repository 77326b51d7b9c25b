"""Files that are written atomically, whole or not at all: text, JSON, and rows as JSON lines."""

import errno
import json
import math
import os
import resource
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any

from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import translate
from tunelab.runs.redact import redact, redact_row
from tunelab.runs.stored_json import read_stored_rows

PARTIAL_SUFFIX = ".part"  # ending of a file that is still being written; safe to delete when no process writes
LINK_ERRNOS = (errno.ELOOP, errno.EMLINK, errno.EEXIST)  # the answers of systems to a link that is not followed
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(
    path: Path, fill: Callable[[IO[bytes]], object], size: int | None = None, *, lasting: bool = True
) -> None:
    """Replace `path` by what `fill` writes, in one move.

    The bytes go to a file beside the target, since a move is atomic only within one file system, and reach the disk
    before the move does: otherwise a power cut leaves an empty file under the right name.

    Args:
        path: The file to write; an old one stays unchanged until the new one is complete.
        fill: Writes to an open binary file, for instance `partial(torch.save, state)`.
        size: Bytes that will be written, for the message on a full disk; None where unknown.
        lasting: False skips the sync to disk: faster, for files that can be regenerated.

    Raises:
        TuneLabError: If the file cannot be written; names the file, the bytes needed and the bytes free.  Where the
            size is known that is said before anything is written.
    """
    part = partial_path(path)
    if size is not None:
        check_space(path, size)
    try:
        part.unlink(missing_ok=True)  # of a process that had this number; a link goes, what it points to stays
        with os.fdopen(open_unlinked(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            fill(file)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(part, path)
        if lasting:
            sync_folder(path.parent)
    except (OSError, RuntimeError) as fault:
        # torch's own writer, interrupted by the system's error, raises one about itself
        cause = fault if isinstance(fault, OSError) else fault.__context__
        if not isinstance(cause, OSError):
            raise
        written = part.stat().st_size if part.exists() else 0
        raise write_error(
            path, cause, f"{size:,}" if size is not None else translate("more than {written:,}", written=written)
        ) from fault
    finally:
        part.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """The name beside a file or folder under which this process writes it."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")


def open_unlinked(path: Path, flags: int) -> int:
    """A handle of a file that is opened to be changed, and is no link.

    Raises:
        ConfigError: If it is one: what it points to, perhaps outside the folder, would be changed.
    """
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as fault:
        if fault.errno in LINK_ERRNOS and path.is_symlink():
            raise ConfigError(link_fault(path)) from fault
        raise


def link_fault(path: Path) -> str:
    """Why a link is not written to, and what to do."""
    return translate(
        "{path} is a link to {target}, which would be overwritten; remove the link, or give another hydra.run.dir",
        path=path,
        target=os.readlink(path),
    )


def remove_tree(path: Path) -> None:
    """Remove a folder of ours with all that it holds; of a link only the link goes."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, as UTF-8, secrets redacted; see `write_atomically`."""
    content = str(redact(text)).encode()
    write_atomically(path, lambda file: file.write(content), len(content))


def write_json(path: Path, value: Any, *, exact: bool = False) -> None:
    """Replace `path` by `value` as indented JSON, secrets redacted; see `write_atomically` and `to_plain`.

    Args:
        path: The file.
        value: Plain values.
        exact: For what is read back and must not change, such as a chat template: only known values and shapes of keys
            are redacted, not what merely stands under the name of a secret.
    """
    content = json_text(redact_row(value) if exact else redact(value)).encode()
    write_atomically(path, lambda file: file.write(content), len(content))


def json_text(value: Any) -> str:
    """A value as indented JSON; see `to_plain`."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False) + "\n"


def write_text_if_changed(path: Path, text: str) -> None:
    """Like `write_text`, but fast, for a file that is derived from others: unchanged content is not written."""
    content = str(redact(text)).encode()
    try:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    except OSError:  # not there yet
        pass
    write_atomically(path, lambda file: file.write(content), len(content), lasting=False)


def to_plain(value: Any) -> Any:
    """A value for strict JSON: NaN and Inf become None, tuples lists, paths text.

    Raises:
        TypeError: If it holds anything but plain values, such as a tensor.
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):  # numpy's integers too
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON does not know; pass a plain value")


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, so that they survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: Path, fault: OSError, need: str) -> TuneLabError:
    """The error for a failed write, with advice.

    Args:
        path: The file to write.
        fault: The error of the system.
        need: Bytes needed, as text.
    """
    if fault.errno not in DISK_FULL_ERRNOS:
        return ConfigError(
            translate(
                "cannot write {path}: {value}; what was there before is unchanged. Name a place that "
                "this user may write to",
                path=path,
                value=fault.strerror or fault,
            )
        )
    return TuneLabError(
        translate(
            "{errno}: {path} needs {need} [byte|bytes], {free:,} [byte is|bytes are] free; what was there before "
            "is unchanged. Make room, then go on with resume=DIR, or start again under another "
            "hydra.run.dir",
            errno=full_reason(fault.errno, path.parent),
            path=path,
            need=need,
            free=shutil.disk_usage(path.parent).free,
        )
    )


def full_reason(number: int | None, folder: Path) -> str:
    """Why no more can be written to a folder, by the number of the system's error: disk, quota, or limit of a file."""
    if number == errno.EDQUOT:
        return translate("disk quota exceeded, as this user's share of the disk is used up")
    if number == errno.EFBIG:
        return translate(
            "the limit on the size of a file is {value:,} [byte|bytes] (ulimit -f unlimited lifts it)",
            value=file_size_limit() or 0,
        )
    usage = os.statvfs(folder)
    if usage.f_bavail and usage.f_files and not usage.f_favail:
        return translate("the disk is full: it has room for no further file, only for bytes (df -i)")
    return translate("the disk is full")


def file_size_limit() -> int | None:
    """The most bytes that a file of this process may have (`ulimit -f`); None without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def check_space(path: Path, size: int) -> None:
    """Check that a file of that size can be written, before it is begun.

    Raises:
        TuneLabError: If the disk has less room, or the system allows no file of that size.
    """
    limit = file_size_limit()
    if limit is not None and size > limit:
        raise write_error(path, OSError(errno.EFBIG, "File too large"), f"{size:,}")
    if size > shutil.disk_usage(path.parent).free:
        raise write_error(path, OSError(errno.ENOSPC, "No space left on device"), f"{size:,}")


Row = dict[str, Any]


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by rows, one JSON object per line; see `write_atomically`."""

    def fill(file: IO[bytes]) -> None:
        for row in rows:
            file.write(_json_line(redact_row(row)))

    write_atomically(path, fill)


def read_json_lines(path: Path) -> list[Row]:
    """The rows of a file; see `read_stored_rows`."""
    return read_stored_rows(path)


def join_rank_shares(shares: Sequence[Sequence[Row]], expected: int | Collection[int]) -> list[Row]:
    """The predictions of all ranks, ordered by `row`.

    Args:
        shares: Rows of each rank; each row has `row`, the index of its record in the split.
        expected: Number of rows, counted from 0; or their indices, where records were dropped.

    Raises:
        TuneLabError: If a row is missing, is there twice, or belongs to no record: scores over such rows would be
            silently wrong.
    """
    rows = sorted((row for share in shares for row in share), key=lambda row: int(row["row"]))
    indices = [int(row["row"]) for row in rows]
    needed = set(range(expected) if isinstance(expected, int) else expected)
    twice = {index for index, following in pairwise(indices) if index == following}
    wrong = {
        "missing": needed - set(indices),
        translate("there twice"): twice,
        translate("of no record"): set(indices) - needed,
    }
    faults = [
        translate("{count} [row|rows] {what}, such as {ids}", count=len(ids), what=what, ids=sorted(ids)[:5])
        for what, ids in wrong.items()
        if ids
    ]
    if faults:
        raise TuneLabError(
            translate(
                "the predictions of {count} [rank|ranks] do not cover the split once: {names}; scores over "
                "them would be wrong. Run the test again, on one process if it persists",
                count=len(shares),
                names=translate("; ").join(faults),
            )
        )
    return rows


def _json_line(row: Mapping[str, Any]) -> bytes:
    """A row as one line of UTF-8; escaped only where it holds half a surrogate pair, which UTF-8 cannot encode."""
    try:
        return (json.dumps(to_plain(row), ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(to_plain(row), allow_nan=False) + "\n").encode()
