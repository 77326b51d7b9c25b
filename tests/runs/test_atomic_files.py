"""Files appear whole or not at all."""

import errno
import io
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunelab.errors import ConfigError, TuneLabError
from tunelab.runs import atomic_files
from tunelab.runs.atomic_files import (
    open_unlinked,
    partial_path,
    remove_tree,
    to_plain,
    write_atomically,
    write_json,
    write_text,
    write_text_if_changed,
)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_failed_move_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "run.json"
    write_text(target, "old")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(TuneLabError, match=r"cannot write .*run\.json: Permission denied"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == {"run.json"}


def test_a_full_disk_is_told_with_file_need_and_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "metrics.json"
    write_text(target, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TuneLabError, match=r"disk is full: .*metrics\.json needs 12,345 bytes, [\d,]+ bytes are free"):
        write_text(target, "x" * 12345)
    with pytest.raises(TuneLabError, match=r"needs more than 7 bytes"):
        write_atomically(target, lambda file: (file.write(b"1234567"), file.flush()))
    assert target.read_text() == "old"
    assert names(tmp_path) == {"metrics.json"}


def test_an_interrupted_fill_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "predictions.jsonl"
    write_text(target, "old")

    def stop(file: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, stop)
    assert (target.read_text(), names(tmp_path)) == ("old", {"predictions.jsonl"})


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    write_text(target, "old")
    code = """
        import os, signal, sys
        from pathlib import Path
        from tunelab.runs.atomic_files import write_atomically

        def fill(file):
            file.write(b"half of the new")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        write_atomically(Path(sys.argv[1]), fill)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(target)], timeout=500, check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_bytes_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, move = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *ends: (order.append("move"), move(*ends)))
    write_text(tmp_path / "config.yaml", "lr: 1")
    assert order == ["sync", "move", "sync"]


def test_plain_values_are_strict_json() -> None:
    value = {1: (1, 2.5), "nan": float("nan"), "inf": np.float32("inf"), "path": Path("a"), "n": np.int64(3), "b": True}
    assert to_plain(value) == {"1": [1, 2.5], "nan": None, "inf": None, "path": "a", "n": 3, "b": True}


def test_a_tensor_is_no_plain_value(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Tensor"):
        write_json(tmp_path / "metrics.json", {"test/loss": torch.tensor([1.0])})
    assert names(tmp_path) == set()


class FullAfter(io.BytesIO):
    """A file on a disk that is full after some bytes."""

    def write(self, content: Any) -> int:
        if self.tell() > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def test_a_disk_that_fills_up_under_torchs_own_writer_is_told_as_full(tmp_path: Path) -> None:
    # torch answers with a RuntimeError about positions in a zip file
    state = {"weight": torch.zeros(5000)}

    with pytest.raises(TuneLabError, match="the disk is full"):
        write_atomically(tmp_path / "last.ckpt", lambda file: torch.save(state, FullAfter()))
    assert not list(tmp_path.iterdir())


def test_a_derived_file_is_renewed_only_where_it_says_something_else(tmp_path: Path) -> None:
    target = tmp_path / "study.csv"
    write_text_if_changed(target, "a\n")
    first = target.stat().st_ino
    write_text_if_changed(target, "a\n")
    assert target.stat().st_ino == first
    write_text_if_changed(target, "b\n")
    assert target.read_text() == "b\n" and names(tmp_path) == {"study.csv"}


def test_a_link_under_the_name_of_a_half_written_file_loses_nothing(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    partial_path(tmp_path / "a.json").symlink_to(precious)
    (tmp_path / "a.json").symlink_to(precious)

    write_json(tmp_path / "a.json", {"a": 1})

    assert precious.read_text() == "mine"
    assert not (tmp_path / "a.json").is_symlink() and (tmp_path / "a.json").read_text() == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_a_file_that_is_changed_in_place_is_no_link(target: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "log").symlink_to(tmp_path / target)

    with pytest.raises(ConfigError, match=rf"log is a link to .*{target}"):
        open_unlinked(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    assert (tmp_path / "precious").read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_removing_a_link_to_a_folder_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "precious" / "inner").mkdir(parents=True)
    (tmp_path / ".export.old").symlink_to(tmp_path / "precious")

    remove_tree(tmp_path / ".export.old")

    assert (tmp_path / "precious" / "inner").is_dir() and not (tmp_path / ".export.old").is_symlink()


@pytest.mark.parametrize(
    ("size", "limit", "reason"),
    [
        (10**18, None, "the disk is full: .* needs 1,000,000,000,000,000,000 bytes"),
        (5000, 4096, "4,096 bytes .ulimit -f"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    size: int, limit: int | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_files, "file_size_limit", lambda: limit)
    (tmp_path / "last.ckpt").write_text("old")

    with pytest.raises(TuneLabError, match=reason) as refused:
        write_atomically(tmp_path / "last.ckpt", lambda file: pytest.fail("written"), size)

    assert refused.value.exit_status == 1
    assert names(tmp_path) == {"last.ckpt"} and (tmp_path / "last.ckpt").read_text() == "old"


def test_a_quota_is_not_called_a_full_disk(tmp_path: Path) -> None:
    def fill(_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.raises(TuneLabError, match="disk quota exceeded") as refused:
        write_atomically(tmp_path / "a", fill)
    assert refused.value.exit_status == 1 and not names(tmp_path)


def test_a_limit_on_file_size_leaves_nothing_torn(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom tunelab.runs.atomic_files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_atomically(Path(sys.argv[1]), lambda file: file.write(bytes(9000)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)

    assert "the limit on the size of a file is 4,096 bytes (ulimit -f" in done.stderr
    assert not names(tmp_path)
