"""Files of ours that are torn, of another shape or no files: one message that names file, fault and way out."""

import os
import socket
from pathlib import Path

import pytest

from tunelab.config.resume import read_settings
from tunelab.config.stored_files import UnreadableFileError, no_file_reason, read_stored_yaml, shape_faults_explained
from tunelab.errors import ConfigError
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.stored_json import read_stored_json, read_stored_rows

DEEP = 100_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ('{"a":', "is cut off"),
        ("{'a': 1}", "is damaged"),
        ("[" * DEEP, "nested too deeply"),
        ('{"a":' * DEEP, "nested too deeply"),
        ("[1, 2]", "holds a list where a JSON object belongs"),
        ("3", "holds a number where a JSON object belongs"),
        ("null", "holds null where a JSON object belongs"),
        ('{"n": ' + "9" * 5000 + "}", "is damaged"),
        ('{"config": []}', "config is a list where an object belongs"),
        ('{"config": {}, "seconds": true}', "seconds is true or false where a number or null belongs"),
    ],
)
def test_a_damaged_manifest_names_its_file_and_its_fault(tmp_path: Path, content: str, reason: str) -> None:
    run = RunDirectory(tmp_path)
    run.manifest.write_text(content)

    with pytest.raises(ConfigError, match="run.json") as fault:
        run.read_manifest()

    assert reason in str(fault.value) and "backup" in str(fault.value)


def test_bytes_that_are_no_text_are_named_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_bytes(b'{"a": "\xff"}')

    with pytest.raises(UnreadableFileError, match="byte 0xff at offset 7 is no UTF-8"):
        read_stored_json(file)


def test_a_damaged_row_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    file.write_text('{"number": 0}\n{"number": 1\n')
    with pytest.raises(UnreadableFileError, match=r"trials.jsonl line 2 is (cut off|damaged)"):
        read_stored_rows(file)

    file.write_text('{"number": 0}\n7\n')
    with pytest.raises(UnreadableFileError, match="line 2 holds a number where a JSON object belongs"):
        read_stored_rows(file)


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    pipe, link, loop, folder, node = (tmp_path / name for name in ("pipe", "link", "loop", "folder", "socket"))
    os.mkfifo(pipe)
    link.symlink_to("nowhere")
    loop.symlink_to("loop")
    folder.mkdir()
    reasons = {path.name: no_file_reason(path) or "" for path in (pipe, link, loop, folder)}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(node))
        reasons["socket"] = no_file_reason(node) or ""

    assert "named pipe" in reasons["pipe"] and "link to nowhere, which is not there" in reasons["link"]
    assert "symbolic links" in reasons["loop"] and "is a folder" in reasons["folder"]
    assert "is a socket" in reasons["socket"]
    assert "device" in (no_file_reason(Path("/dev/zero")) or "")
    assert no_file_reason(tmp_path / "nothing") is None


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(10), "once its aliases are written out"),
        ("data: &a [*a]", "alias within itself"),
        ("data: " + "[" * 5000, "nested too deeply"),
        ("data: {a: 3", "cannot be read"),
        ("- 1\n- 2\n", "holds no settings"),
        ("data: 3\n", "holds no settings"),
        ("", "holds no settings"),
        ("data: {a: '" + "${" * 2000 + "'}", "refers to values within values"),
    ],
)
def test_settings_that_would_fill_the_memory_or_are_none_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError, match="config.yaml") as fault:
        read_settings(file)

    assert reason in str(fault.value)


def test_aliases_within_reason_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(bomb(3) + "\ndata: {x: *a2}\n")

    assert read_stored_yaml(file) and len(read_settings(file).data.x) == 10


def test_a_value_of_another_kind_is_explained_and_our_own_messages_pass() -> None:
    with (
        pytest.raises(UnreadableFileError, match=r"task.json is not as it was written \(TypeError"),
        shape_faults_explained("task.json"),
    ):
        len(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="^as it is$"), shape_faults_explained("task.json"):
        raise ConfigError("as it is")
