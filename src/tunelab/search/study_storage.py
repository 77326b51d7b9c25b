"""The study in Optuna's storage: a database or a journal safe against torn lines and full disks; facts and outcomes of
trials; the lock under which an engine decides.
"""

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from typing_extensions import override

from tunelab.errors import ConfigError, TuneLabError
from tunelab.runs.atomic_files import DISK_FULL_ERRNOS
from tunelab.search.study_folder import StudyFolder
from tunelab.search.trial_outcome import TrialOutcome

STUDY_NAME = "tunelab"


def open_storage(where: str | None, folder: StudyFolder) -> tuple[BaseStorage, list[str]]:
    """The storage of a study, and what had to be mended in words.

    Args:
        where: A path, a database address such as `postgresql://...`, or None for the folder's own journal.
        folder: The study.

    Raises:
        ConfigError: If the database cannot be opened.
    """
    optuna.logging.set_verbosity(logging.ERROR)
    if where is not None and "://" in where:
        try:
            return RDBStorage(where, engine_kwargs={"pool_pre_ping": True}), []
        except Exception as fault:  # whatever the driver raises, the address is at fault
            first = (str(fault).splitlines() or [type(fault).__name__])[0]
            raise ConfigError(
                f"search.storage={where.partition('://')[0]}://...: {first}; check the address and that its driver is "
                "installed, or leave search.storage out: a journal in the study's folder serves many machines too"
            ) from fault
    backend = SafeJournal(Path(where) if where is not None else folder.journal)
    return SafeStorage(backend), backend.repaired


def open_study(
    storage: BaseStorage, name: str, directions: Sequence[str], sampler: BaseSampler | None, pruner: BasePruner | None
) -> optuna.Study:
    """The study of that name, made where it is new.

    Raises:
        ConfigError: If it optimises something else.
    """
    ways = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
    wanted = [ways[direction] for direction in directions]
    study = optuna.create_study(
        storage=storage, study_name=name, directions=wanted, load_if_exists=True, sampler=sampler, pruner=pruner
    )
    if study.directions != wanted:
        found = ", ".join(direction.name.lower() for direction in study.directions)
        raise ConfigError(
            f"this study is to {found} and the command asks to {', '.join(directions)}imise; give a new folder "
            "(hydra.sweep.dir=DIR) or the objectives it began with"
        )
    return study


def running_trial(storage: BaseStorage, name: str, number: int, pruner: BasePruner | None) -> Any:
    """A running trial by its number, from another process than the engine's: it can report and ask whether to stop."""
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    identifier = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(name), number)
    return optuna.trial.Trial(study, identifier)


OPTUNA_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class TrialStore:
    """The record of one study, by trial number.

    Attributes:
        study: Optuna's view of it.
        storage: Where it is kept.
    """

    study: optuna.Study
    storage: BaseStorage

    def trials(self) -> list[FrozenTrial]:
        """Every trial of the study, as it stands now."""
        return self.study.get_trials(deepcopy=False)

    def at_once(self) -> AbstractContextManager[None]:
        """Within it, what is noted of one event waits for the disk once, at the end."""
        return self.storage.journal.at_once() if isinstance(self.storage, SafeStorage) else nullcontext()

    def settle(self) -> None:
        """Wait for the disk now, also within `at_once`."""
        if isinstance(self.storage, SafeStorage):
            self.storage.journal.settle()

    def write(self, number: int, **facts: Any) -> None:
        """Note facts of a trial, plain values; does nothing where another engine has ended it meanwhile."""
        identifier = self._identifier(number)
        with suppress(UpdateFinishedTrialError):
            for name, value in facts.items():
                self.storage.set_trial_user_attr(identifier, name, value)

    def facts(self, number: int) -> dict[str, Any]:
        """What has been noted of a trial."""
        return dict(self.storage.get_trial(self._identifier(number)).user_attrs)

    def end(self, number: int, ended: TrialOutcome, excess: Mapping[str, float]) -> None:
        """Note how a trial ended, and end it; does nothing where another engine has done so.

        Args:
            number: Of the trial.
            ended: How it ended.
            excess: By constraint, how far it lies above the limit; samplers learn from it too.
        """
        identifier = self._identifier(number)
        if self.storage.get_trial(identifier).state.is_finished():
            return
        self.write(number, seconds=ended.seconds, kind=ended.kind, reason=ended.reason, scores=dict(ended.scores))
        if excess:
            self.write(number, excess=list(excess.values()))
            trial = Trial(self.study, identifier)
            for name, value in excess.items():
                trial.set_constraint(name, value)
        values = list(ended.values) if ended.state == "complete" else None
        self.study.tell(number, values, state=OPTUNA_STATES[ended.state], skip_if_finished=True)

    def _identifier(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)


NO_LOCK_ERRORS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
LINK_GRACE = 120  # seconds after which a link that a dead process left counts for nothing


@contextmanager
def study_lock(path: Path) -> Iterator[None]:
    """Hold the lock on a file while a trial is counted and taken.

    On a network disk without kernel locks a symbolic link stands in; one that a dead process left is taken over.

    Args:
        path: The lock file of the study; made where it is missing, and never deleted.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    link = None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel lets go of it when the process dies
        except OSError as fault:
            if fault.errno not in NO_LOCK_ERRORS:
                raise
            link = JournalFileSymlinkLock(str(path), LINK_GRACE)
            link.acquire()
        yield
    finally:
        if link is not None:
            link.release()
        os.close(handle)


JOURNAL_LOCK_GRACE = 30  # seconds after which a lock that a dead process holds is taken over
DISK_FULL_PAUSE = 2.0  # seconds between two tries on a full disk


class SafeJournal(JournalFileBackend):
    """Optuna's journal file whose lines are whole.

    Args:
        path: The file; made where it is missing.
        patience: Seconds to wait for space on a full disk before giving up.
    """

    def __init__(self, path: Path, patience: float = 600.0) -> None:
        self.path, self.patience = path, patience
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = JournalFileSymlinkLock(str(path), JOURNAL_LOCK_GRACE)
        super().__init__(str(path), self.lock)
        self.gathering, self.owing = 0, False
        self.repaired = self._under_lock_mend()

    @override
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines or none; waits for space.  On return they are on disk, unless within `at_once`.

        Raises:
            TuneLabError: If the disk stays full.
        """
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        began = time.monotonic()
        while True:
            try:
                self._append(content)
                return
            except OSError as fault:
                if fault.errno not in DISK_FULL_ERRNOS:
                    raise
                if time.monotonic() - began > self.patience:
                    raise TuneLabError(
                        f"cannot write to the journal {self.path}: {fault.strerror}, for {self.patience:.0f} s. "
                        "No trial is lost: free some space and give the same command again"
                    ) from fault
                time.sleep(min(DISK_FULL_PAUSE, self.patience))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it lines are written, and seen by others, as ever, but reach the disk together at its end.

        Waiting for the disk is most of what a line costs; a process that dies loses none of them either way.
        """
        self.gathering += 1
        try:
            yield
        finally:
            self.gathering -= 1
            if not self.gathering:
                self.settle()

    def settle(self) -> None:
        """Put on disk what is not there yet."""
        if not self.owing:
            return
        handle = os.open(self.path, os.O_WRONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self.owing = False

    def _append(self, content: bytes) -> None:
        self.lock.acquire()
        try:
            size = self.path.stat().st_size
            if size and not ends_with_newline(self.path):
                repair_journal(self.path)
                size = self.path.stat().st_size
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                written = 0
                while written < len(content):
                    written += os.write(handle, content[written:])
                self.owing = self.gathering > 0
                if not self.owing:
                    os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)  # the piece that did fit would spoil the next line
                raise
            finally:
                os.close(handle)
        finally:
            self.lock.release()

    def _under_lock_mend(self) -> list[str]:
        self.lock.acquire()
        try:
            return repair_journal(self.path)
        finally:
            self.lock.release()


class SafeStorage(JournalStorage):
    """Optuna's storage over a journal whose lines are whole.

    Args:
        journal: The file.
    """

    def __init__(self, journal: SafeJournal) -> None:
        super().__init__(journal)
        self.journal = journal


def ends_with_newline(path: Path) -> bool:
    """Whether the last byte of a file that is not empty ends a line."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def repair_journal(path: Path) -> list[str]:
    """Take out what is no whole JSON line, after a copy of the file was kept beside it.

    Returns:
        What was done, in words; empty where nothing was amiss.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    bad = [number for number, line in enumerate(lines, 1) if not is_complete_line(line)]
    if not bad:
        return []
    copy = path.with_name(f"{path.name}.torn-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    copy.write_bytes(b"".join(lines))
    kept = [line for line in lines if is_complete_line(line)]
    part = path.with_name(f"{path.name}.mended")
    part.write_bytes(b"".join(kept))
    os.replace(part, path)
    numbers = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return [
        f"the journal {path} had a torn line ({numbers} of {len(lines)}); it was taken out, the old file is {copy.name}"
    ]


def is_complete_line(line: bytes) -> bool:
    """Whether a line is one JSON object with its end."""
    if not line.endswith(b"\n"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
