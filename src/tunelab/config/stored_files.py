"""Files that a run, a study or somebody else left behind: read whole and within bounds, or refused in one sentence.

Such a file may be torn, empty, of another shape, nested without end, or no file at all but a pipe that never ends.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tunelab.errors import ConfigError, TuneLabError, first_line
from tunelab.language.translation import message, translate

MAX_STORED_BYTES = 2**28  # bytes of a file of ours that is read whole; predictions of a million rows take less
MAX_YAML_VALUES = 100_000  # values of a yaml once its aliases are written out
MAX_DEPTH = 100  # blocks within blocks; ours need 8
MAX_REASON = 200  # characters of another package's message
# What code that reads a value raises where the value is of another kind than it was written as.
SHAPE_FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, AssertionError)

RUN_FILE_ADVICE = message("take it from a backup, or train the run again")
STUDY_FILE_ADVICE = message("take it from a backup; the same search command writes it anew from the study's journal")


FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: message("a named pipe, which may never end"),
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: message("a device, which may never end"),
    stat.S_IFBLK: "a device",
}


class UnreadableFileError(ConfigError, ValueError):
    """A file cannot be used as what it stands for; a ValueError too, for those who go on without the file."""


def no_file_reason(path: Path) -> str | None:
    """Why a path cannot be read as a file, such as a pipe; None where it can, or where nothing is there."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return (
            translate("is a link to {target}, which is not there", target=os.readlink(path))
            if path.is_symlink()
            else None
        )
    except OSError as fault:  # a link to itself, a folder that may not be entered, a name that is too long
        return translate("cannot be reached: {reason}", reason=(fault.strerror or str(fault)).lower())
    except ValueError:
        return translate("is no path: it holds a NUL")
    kind = FILE_KINDS.get(stat.S_IFMT(mode))
    return translate("is {kind}, not a file", kind=kind) if kind else None


def read_stored_text(path: Path, advice: str = RUN_FILE_ADVICE) -> str:
    """The text of a file of ours.

    Raises:
        FileNotFoundError: If nothing is there.
        UnreadableFileError: If it is no file, too large, or not UTF-8.
    """
    if reason := no_file_reason(path):
        raise UnreadableFileError(translate("{path} {reason}; {advice}", path=path, reason=reason, advice=advice))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_STORED_BYTES + 1)
        if len(content) > MAX_STORED_BYTES:
            reason = translate(
                "is larger than {limit:.0f} MB, which no such file of ours is",
                limit=MAX_STORED_BYTES / 2**20,
            )
            raise UnreadableFileError(translate("{path} {reason}; {advice}", path=path, reason=reason, advice=advice))
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise UnreadableFileError(
            translate("{path} cannot be read: {reason}", path=path, reason=(fault.strerror or str(fault)).lower())
        ) from fault
    except UnicodeDecodeError as fault:
        raise UnreadableFileError(
            translate(
                "{path} is damaged: byte 0x{content:02x} at offset {start} is no UTF-8; {advice}",
                path=path,
                content=content[fault.start],
                start=fault.start,
                advice=advice,
            )
        ) from fault


def read_stored_yaml(path: Path, advice: str = RUN_FILE_ADVICE) -> str:
    """The text of a yaml that is safe to load: its aliases, written out, do not fill the memory.

    Raises:
        FileNotFoundError: If nothing is there.
        UnreadableFileError: If it is no file, no yaml, or larger than any of ours.
    """
    text = read_stored_text(path, advice)
    if reason := yaml_bomb_reason(text):
        raise UnreadableFileError(translate("{path} {reason}; {advice}", path=path, reason=reason, advice=advice))
    return text


def yaml_bomb_reason(text: str) -> str | None:
    """Why a yaml would take all memory or time to load; None where it would not, or is no yaml at all."""
    if len(text) > 2**22:
        return translate("has {count:,} [character|characters], which no settings have", count=len(text))
    if text.count("${") > 1000 or "${${${${" in text.replace(" ", ""):
        return translate("refers to values within values, more than any settings do")
    if depth_of_brackets(text) > MAX_DEPTH:
        return translate("is nested too deeply")
    if "*" not in text or "&" not in text:
        return None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        size = written_out(root, {})
    except yaml.YAMLError:
        return None  # its reader says where
    except RecursionError:
        return translate("is nested too deeply, or holds an alias within itself")
    return (
        translate("stands for {size:,} [value|values] once its aliases are written out", size=size)
        if size > MAX_YAML_VALUES
        else None
    )


def depth_of_brackets(text: str) -> int:
    """How deep brackets stand within brackets, quoted ones counted too."""
    depth = deepest = 0
    for letter in text:
        if letter in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth = max(0, depth - 1)
    return deepest


def written_out(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """The number of values below a node of a yaml with each alias written out.

    Raises:
        RecursionError: If an alias stands within what it stands for.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise RecursionError
        return sizes[id(node)]
    sizes[id(node)] = 0
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        below = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        below = list(node.value)
    sizes[id(node)] = 1 + sum(written_out(part, sizes) for part in below)
    return sizes[id(node)]


def error_on_one_line(fault: Exception) -> str:
    """An error on one line."""
    return " ".join((str(fault).strip() or type(fault).__name__).split())[:MAX_REASON]


@contextmanager
def shape_faults_explained(what: object, advice: str = RUN_FILE_ADVICE) -> Iterator[None]:
    """Within this block the values of a file are used; one of another kind than was written names the file.

    Raises:
        UnreadableFileError: Where reading a value failed.
    """
    try:
        yield
    except SHAPE_FAULTS as fault:
        if isinstance(fault, TuneLabError):
            raise
        said = first_line(fault)[:MAX_REASON]
        kind = type(fault).__name__
        reason = kind if said == kind else f"{kind}: {said}"
        raise UnreadableFileError(
            translate("{what} is not as it was written ({reason}); {advice}", what=what, reason=reason, advice=advice)
        ) from fault
