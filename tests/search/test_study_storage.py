"""The journal of a study under torn lines and full disks."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage

from tunelab.errors import TuneLabError
from tunelab.search.study_storage import SafeJournal, SafeStorage


def study(path: Path) -> optuna.Study:
    storage = JournalStorage(SafeJournal(path, patience=0.3))
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def add(path: Path, count: int) -> None:
    found = study(path)
    for _ in range(count):
        add_to(found)


def add_to(found: optuna.Study) -> None:
    trial = found.ask()
    found.tell(trial, trial.suggest_float("x", 0, 1))


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("cut", [1, 2, 25])
def test_a_torn_last_line_is_taken_out_and_a_copy_is_kept(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.log"
    add(path, 3)
    torn = path.read_bytes()[:-cut]
    path.write_bytes(torn)

    journal = SafeJournal(path)

    assert len(journal.repaired) == 1 and "torn line" in journal.repaired[0]
    (copy,) = tmp_path.glob("journal.log.torn-*")
    assert copy.read_bytes() == torn
    add(path, 2)
    assert len(study(path).trials) == 5


def test_a_line_glued_to_a_torn_one_does_not_spoil_the_study(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    add(path, 2)
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor{"op_code":4,"worker_id":"a","study_id":0}\n')

    add(path, 1)

    assert len(study(path).trials) == 3


def test_a_tear_that_happens_while_a_study_is_open_is_mended_by_its_next_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    found = study(path)
    found.tell(found.ask(), 1.0)
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')

    found.tell(found.ask(), 2.0)

    assert [trial.value for trial in study(path).trials] == [1.0, 2.0]


def test_a_full_disk_leaves_whole_lines_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    add(path, 2)
    found = study(path)
    before = path.read_bytes()

    with no_room_beyond(len(before) + 10), pytest.raises(TuneLabError, match="No trial is lost"):
        found.ask()

    assert path.read_bytes() == before
    add(path, 1)
    assert len(study(path).trials) == 3


def test_a_disk_that_has_room_again_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    add(path, 1)
    storage = JournalStorage(SafeJournal(path, patience=20))
    found = optuna.load_study(study_name="s", storage=storage)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with no_room_beyond(path.stat().st_size + 10):
        relief = threading.Timer(0.5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
        relief.start()
        found.tell(found.ask(), 3.0)

    assert study(path).trials[-1].value == 3.0


def test_what_is_noted_of_one_event_waits_for_the_disk_once_and_is_seen_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SafeJournal(tmp_path / "journal.log")
    found = optuna.create_study(storage=SafeStorage(journal), study_name="s")
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)

    with journal.batched_sync():
        add_to(found)
        with journal.batched_sync():
            add_to(found)
        other = optuna.load_study(storage=JournalStorage(SafeJournal(journal.path)), study_name="s")
        assert not waits and len(other.trials) == 2
    assert len(waits) == 1
    with journal.batched_sync():
        pass
    assert len(waits) == 1
    add_to(found)
    assert len(waits) > 2  # elsewhere each line is on disk before the next
