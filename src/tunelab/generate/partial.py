"""Answers that are still being made, on disk, so that a killed process loses a window of them at most."""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tunelab.atomic import cannot_write, plain
from tunelab.errors import ConfigError


class Partial:
    """A file of one JSON object per line: first what the answers belong to, then the answers in the order of rows.

    Args:
        path: The file; made if it is not there.
        belongs: What the answers depend on, by what it is called in a message: input, model, settings.

    Attributes:
        answers: Those that are already there.

    Raises:
        ConfigError: If another process writes to it, or its answers belong to something else.
    """

    def __init__(self, path: Path, belongs: Mapping[str, Any]) -> None:
        self.path = path
        try:
            self.file: IO[bytes] = path.open("a+b")
        except OSError as fault:
            raise ConfigError(f"cannot write {path}: {fault.strerror}; choose another --output") from fault
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise ConfigError(f"another process is writing to {path}; wait for it, or give another --output") from None
        self.answers = self._read(dict(belongs))

    def _read(self, belongs: dict[str, Any]) -> list[dict[str, Any]]:
        self.file.seek(0)
        whole = self.file.read()
        whole = whole[: whole.rfind(b"\n") + 1]  # what follows was being written when the process died
        lines = whole.split(b"\n")[:-1]
        if lines:
            known = _parsed(lines[0])
            changed = [name for name in belongs if known.get(name) != belongs[name]]
            if changed:
                self.file.close()
                raise ConfigError(
                    f"{self.path} holds {len(lines) - 1} answers that belong to another {' and '.join(changed)}; mixed "
                    "with new ones they would be wrong. Delete it to start anew, or give another --output"
                )
        self.file.truncate(len(whole))
        if not lines:
            self._append([belongs])
        return [_parsed(line) for line in lines[1:]]

    def add(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Append answers, and see to it that they are on the disk."""
        self._append(answers)
        self.answers += [dict(answer) for answer in answers]

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(plain(row)) + "\n" for row in rows)
        try:
            self.file.write(text.encode())
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as fault:
            raise cannot_write(self.path, fault, f"{len(text):,}") from fault

    def drop(self) -> None:
        """Delete the file: its answers are in their place now."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


def _parsed(line: bytes) -> dict[str, Any]:
    """A line of the file; empty where it is damaged, which then belongs to nothing."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
