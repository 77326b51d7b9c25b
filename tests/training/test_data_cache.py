"""Prepared data of large files are kept for the next start: the same data, never stale, never half written."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT
from support.tiny_runs import instructions, labelled, settings
from tunelab.data.token_store import token_fingerprint
from tunelab.training import components, data_cache
from tunelab.training.components import EncodedData, build_data_report, encode_data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept data."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tunelab" / "data"


def everything(encoded: EncodedData) -> dict[str, Any]:
    """All that a run takes from its data, as plain values."""
    sources = encoded.sources
    return {
        "examples": {name: list(split) for name, split in encoded.examples.items()},
        "prints": {name: token_fingerprint(split) for name, split in encoded.examples.items()},
        "rows": {name: [*split.rows] for name, split in sources.splits.items()},
        "places": {name: [*split.locations, *split.sources] for name, split in sources.splits.items()},
        "notes": [(type(note), note) for note in sources.notes],
        "files": sources.file_hashes,
        "counts": encoded.counts,
        "state": encoded.task.state(),
        "report": build_data_report(encoded),
    }  # fmt: skip


def entries(cache: Path) -> list[str]:
    """Names of what is kept."""
    return sorted(place.name for place in cache.glob("prepared-*/"))


@pytest.mark.parametrize("task", ["instruction", "classification", "regression"])
def test_the_second_start_finds_the_data_of_the_first(
    task: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file above the bound, once without a cache
    file = instructions(tmp_path, 60) if task == "instruction" else labelled(tmp_path)
    columns = {"instruction": [], "classification": ["data.text=text", "data.label=label"],
               "regression": ["data.text=text", "data.target=number"]}[task]  # fmt: skip
    words = [f"data={task}", f"data.train={file}", "data.in_memory=0", *columns]
    plain = everything(encode_data(settings(*words, "data.keep_prepared=false")))
    assert not entries(cache)

    # When it is prepared and kept, and then taken
    first = everything(encode_data(settings(*words)))
    monkeypatch.setattr(components, "prepare_data", lambda *_, **__: pytest.fail("prepared again"))
    second = everything(encode_data(settings(*words)))

    # Then all three are one
    assert len(entries(cache)) == 1
    assert plain == first == second


def test_other_bytes_settings_or_tokenizers_have_entries_of_their_own(tmp_path: Path, cache: Path) -> None:
    file = instructions(tmp_path, 40)
    words = ["data=instruction", f"data.train={file}", "data.in_memory=0"]
    for more in ([], ["data.max_tokens=64"], ["seed=7"], ["data.template=chatml"], ["data.workers=1"]):
        encode_data(settings(*words, *more))
    assert len(entries(cache)) == 4  # workers change nothing in the data

    stamp = file.stat()
    file.write_bytes(file.read_bytes().replace(b"say red", b"say RED"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # neither size nor time tell
    changed = encode_data(settings(*words))
    assert len(entries(cache)) == 5
    assert any("RED" in row["instruction"] for split in changed.sources.splits.values() for row in split.rows)


def test_a_damaged_entry_is_made_anew(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=instruction", f"data.train={instructions(tmp_path, 40)}", "data.in_memory=0"]
    before = everything(encode_data(settings(*words)))
    (folder,) = cache.glob("prepared-*/")
    largest = max(folder.glob("*.bin"), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-3])

    assert everything(encode_data(settings(*words))) == before
    assert "cannot be used" in capsys.readouterr().out
    assert everything(encode_data(settings(*words))) == before


def test_an_entry_that_names_a_function_is_not_run(tmp_path: Path, cache: Path) -> None:
    words = ["data=instruction", f"data.train={instructions(tmp_path, 40)}", "data.in_memory=0"]
    before = everything(encode_data(settings(*words)))
    (folder,) = cache.glob("prepared-*/")

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "evil"),)

    (folder / "state").write_bytes(pickle.dumps(Evil()))
    assert everything(encode_data(settings(*words))) == before
    assert not (tmp_path / "evil").exists()


def test_a_place_that_takes_no_files_is_named_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    words = ["data=instruction", f"data.train={instructions(tmp_path, 40)}", "data.in_memory=0"]

    assert encode_data(settings(*words)).counts["train"]["rows"] > 20
    assert "prepared data are not kept" in capsys.readouterr().out


def test_a_full_disk_is_said_and_the_run_goes_on(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_cache, "write_atomically", full)
    words = ["data=instruction", f"data.train={instructions(tmp_path, 40)}", "data.in_memory=0"]

    assert encode_data(settings(*words)).counts["train"]["rows"] > 20
    assert "No space left" in capsys.readouterr().out
    assert not entries(cache)


def test_the_longest_unused_entries_go_first(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["data=instruction", f"data.train={instructions(tmp_path, 40)}", "data.in_memory=0"]
    encode_data(settings(*words))
    first = entries(cache)
    monkeypatch.setattr(data_cache, "MAX_BYTES", 1)
    encode_data(settings(*words, "seed=5"))

    assert len(entries(cache)) == 1
    assert entries(cache) != first


CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from support.tiny_runs import settings
from tunelab.data.token_store import token_fingerprint
from tunelab.training.components import encode_data
encoded = encode_data(settings("data=instruction", f"data.train={sys.argv[2]}", "data.in_memory=0"))
print({name: token_fingerprint(split) for name, split in encoded.examples.items()})
"""


@pytest.mark.slow
def test_two_processes_that_start_at_once_prepare_the_data_once(tmp_path: Path, cache: Path) -> None:
    command = [sys.executable, "-c", CODE, str(ROOT / "tests"), str(instructions(tmp_path, 40))]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=500)[0].splitlines()[-1] for process in both]

    assert said[0] == said[1]
    assert len(entries(cache)) == 1
