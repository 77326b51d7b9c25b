"""The study in Optuna's storage (a database, or a journal safe against torn lines and full disks), and the store in
which the facts and outcomes of its trials are written.
"""

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

from tunelab.errors import ConfigError, TuneLabError, first_line
from tunelab.language.translation import translate
from tunelab.runs.atomic_files import DISK_FULL_ERRNOS, link_fault, open_unlinked, write_atomically
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.trial_outcome import TrialOutcome

STUDY_NAME = "tunelab"


def open_storage(location: str | None, folder: StudyFolder) -> tuple[BaseStorage, list[str]]:
    """The storage of a study, and a line for each repair of its journal.

    Args:
        location: A path, a database address such as `postgresql://...`, or None for the folder's own journal.
        folder: The study.

    Raises:
        ConfigError: If the database cannot be opened.
    """
    optuna.logging.set_verbosity(logging.ERROR)
    if location is not None and "://" in location:
        try:
            return RDBStorage(location, engine_kwargs={"pool_pre_ping": True}), []
        except Exception as fault:  # drivers raise errors of their own
            raise ConfigError(
                translate(
                    "search.storage={scheme}://...: {fault}; check the address and that its driver is "
                    "installed, or leave search.storage out: a journal in the study's folder serves many "
                    "machines too",
                    scheme=location.partition("://")[0],
                    fault=first_line(fault),
                )
            ) from fault
    backend = SafeJournal(Path(location) if location is not None else folder.journal)
    return SafeStorage(backend), backend.repaired


def open_study(
    storage: BaseStorage, name: str, modes: Sequence[str], sampler: BaseSampler | None, pruner: BasePruner | None
) -> optuna.Study:
    """The study of that name, created where it is new.

    Raises:
        ConfigError: If it optimises something else.
    """
    by_mode = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
    optuna_directions = [by_mode[mode] for mode in modes]
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=optuna_directions,
        load_if_exists=True,
        sampler=sampler,
        pruner=pruner,
    )
    if study.directions != optuna_directions:
        recorded = ", ".join(direction.name.lower() for direction in study.directions)
        raise ConfigError(
            translate(
                "this study is to {recorded} and the command is to {names}imise; give a new folder "
                "(hydra.sweep.dir=DIR) or the objectives of the study",
                recorded=recorded,
                names=", ".join(modes),
            )
        )
    return study


def running_trial(storage: BaseStorage, name: str, number: int, pruner: BasePruner | None) -> Any:
    """A running trial by its number, for the process of the trial: it can report scores and be pruned."""
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    trial_id = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(name), number)
    return optuna.trial.Trial(study, trial_id)


OPTUNA_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class TrialStore:
    """Facts and outcomes of the trials of one study, by trial number.

    Attributes:
        study: The study of Optuna.
        storage: Its storage.
    """

    study: optuna.Study
    storage: BaseStorage

    def trials(self) -> list[FrozenTrial]:
        """Every trial of the study, in its present state."""
        return self.study.get_trials(deepcopy=False)

    def batched_sync(self) -> AbstractContextManager[None]:
        """Within it, all that is written is synced to disk once, at the end."""
        return self.storage.journal.batched_sync() if isinstance(self.storage, SafeStorage) else nullcontext()

    def sync(self) -> None:
        """Sync to disk now, also within `batched_sync`."""
        if isinstance(self.storage, SafeStorage):
            self.storage.journal.sync()

    def set_facts(self, number: int, **facts: Any) -> None:
        """Write user attributes of a trial, plain values; does nothing if another engine has finished it meanwhile."""
        trial_id = self._trial_id(number)
        with suppress(UpdateFinishedTrialError):
            for name, value in facts.items():
                self.storage.set_trial_user_attr(trial_id, name, value)

    def facts(self, number: int) -> dict[str, Any]:
        """The user attributes of a trial."""
        return dict(self.storage.get_trial(self._trial_id(number)).user_attrs)

    def finish(self, number: int, outcome: TrialOutcome, excess: Mapping[str, float]) -> None:
        """Write the outcome of a trial and finish it; does nothing if another engine has finished it.

        Args:
            number: Number of the trial.
            outcome: Its outcome.
            excess: By constraint, how far the score lies above the limit; samplers use it too.
        """
        trial_id = self._trial_id(number)
        if self.storage.get_trial(trial_id).state.is_finished():
            return
        facts = {"seconds": outcome.seconds, "kind": outcome.failure_kind, "reason": outcome.reason}
        self.set_facts(number, **facts, scores=dict(outcome.scores))
        if excess:
            self.set_facts(number, excess=list(excess.values()))
            trial = Trial(self.study, trial_id)
            for name, value in excess.items():
                trial.set_constraint(name, value)
        values = list(outcome.values) if outcome.state == "complete" else None
        self.study.tell(number, values, state=OPTUNA_STATES[outcome.state], skip_if_finished=True)

    def _trial_id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)


JOURNAL_LOCK_GRACE = 30  # seconds after which the lock of a dead process is taken over
DISK_FULL_PAUSE = 2.0  # seconds between two tries on a full disk


class SafeJournal(JournalFileBackend):
    """Optuna's journal file, with whole lines only: a torn line is repaired, a full disk waited for.

    Args:
        path: The file; created where it is missing.
        patience: Seconds to wait for space on a full disk.
    """

    def __init__(self, path: Path, patience: float = 600.0) -> None:
        self.path, self.patience = path, patience
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            raise ConfigError(link_fault(path))
        self.lock = JournalFileSymlinkLock(str(path), JOURNAL_LOCK_GRACE)
        super().__init__(str(path), self.lock)
        self.batch_depth, self.unsynced = 0, False
        self.repaired = self._repair_locked()

    @override
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines or none; waits for space.  On return they are synced, unless within `batched_sync`.

        Raises:
            TuneLabError: If the disk stays full.
        """
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        started = time.monotonic()
        while True:
            try:
                self._append(content)
                return
            except OSError as fault:
                if fault.errno not in DISK_FULL_ERRNOS:
                    raise
                if time.monotonic() - started > self.patience:
                    raise TuneLabError(
                        translate(
                            "cannot write to the journal {path}: {reason}, for {patience:.0f} s. No trial is "
                            "lost: free some space and give the same command again",
                            path=self.path,
                            reason=fault.strerror,
                            patience=self.patience,
                        )
                    ) from fault
                time.sleep(min(DISK_FULL_PAUSE, self.patience))

    @contextmanager
    def batched_sync(self) -> Iterator[None]:
        """Within it lines are written, and visible to others, as always, but are synced together at its end.

        Syncing is most of what a line costs; a process that dies loses none of them either way.
        """
        self.batch_depth += 1
        try:
            yield
        finally:
            self.batch_depth -= 1
            if not self.batch_depth:
                self.sync()

    def sync(self) -> None:
        """Sync written lines to disk."""
        if not self.unsynced:
            return
        handle = open_unlinked(self.path, os.O_WRONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self.unsynced = False

    def _append(self, content: bytes) -> None:
        self.lock.acquire()
        try:
            size = self.path.stat().st_size
            if size and not ends_with_newline(self.path):
                repair_journal(self.path)
                size = self.path.stat().st_size
            handle = open_unlinked(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                written = 0
                while written < len(content):
                    written += os.write(handle, content[written:])
                self.unsynced = self.batch_depth > 0
                if not self.unsynced:
                    os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)  # a partial line would corrupt the next one
                raise
            finally:
                os.close(handle)
        finally:
            self.lock.release()

    def _repair_locked(self) -> list[str]:
        self.lock.acquire()
        try:
            return repair_journal(self.path)
        finally:
            self.lock.release()


class SafeStorage(JournalStorage):
    """Optuna's storage over a safe journal.

    Args:
        journal: The journal file.
    """

    def __init__(self, journal: SafeJournal) -> None:
        super().__init__(journal)
        self.journal = journal


def ends_with_newline(path: Path) -> bool:
    """Whether a file that is not empty ends with a newline."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def repair_journal(path: Path) -> list[str]:
    """Remove lines that are not JSON objects, after a copy of the file was made beside it.

    Returns:
        A line that reports the repair; empty where there was nothing to repair.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    bad = [number for number, line in enumerate(lines, 1) if not is_complete_line(line)]
    if not bad:
        return []
    copy = path.with_name(f"{path.name}.torn-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    write_atomically(copy, lambda file: file.write(b"".join(lines)))
    write_atomically(path, lambda file: file.write(b"".join(line for line in lines if is_complete_line(line))))
    numbers = ", ".join(map(str, bad[:5])) + (
        translate(" and {count} more", count=len(bad) - 5) if len(bad) > 5 else ""
    )
    return [
        translate(
            "the journal {path} had a torn line ({numbers} of {count}); it was removed, the old file is {name}",
            path=path,
            numbers=numbers,
            count=len(lines),
            name=copy.name,
        )
    ]


def is_complete_line(line: bytes) -> bool:
    """Whether a line is a JSON object with a newline."""
    if not line.endswith(b"\n"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
