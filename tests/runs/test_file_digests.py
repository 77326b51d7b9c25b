"""The sha256 of files, of the code and of a model's folder."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tunelab.errors import ConfigError
from tunelab.runs.environment import code_sha256
from tunelab.runs.file_digests import sha256_file, sha256_files, sha256_folder


def test_the_sha256_of_a_file_is_that_of_hashlib(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "data.csv").write_bytes(content)
    assert sha256_file(tmp_path / "data.csv") == hashlib.sha256(content).hexdigest()


def test_the_sha256_of_a_model_follows_weights_config_and_names_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = sha256_folder(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert sha256_folder(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"weightz")
    changed = sha256_folder(tmp_path)
    assert changed != before
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert sha256_folder(tmp_path) not in (before, changed)


def test_a_folder_without_a_model_has_no_sha256(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is it a model"):
        sha256_folder(tmp_path)


def test_another_line_of_code_is_another_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = code_sha256(tmp_path)
    (tmp_path / "notes.md").write_text("words")
    assert code_sha256(tmp_path) == before
    (tmp_path / "a.py").write_text("x = 2\n")
    assert code_sha256(tmp_path) != before


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_sha256_of_several_files_is_that_of_what_sha256sum_lists(tmp_path: Path) -> None:
    names = ["a.py", "b/c.py", "b/d.py"]
    (tmp_path / "b").mkdir()
    for name in names:
        (tmp_path / name).write_text(name)
    listed = subprocess.run(["sha256sum", *names], cwd=tmp_path, capture_output=True, check=True).stdout
    expected = hashlib.sha256(listed).hexdigest()

    assert sha256_files((tmp_path / name for name in reversed(names)), tmp_path) == expected
    assert code_sha256(tmp_path) == sha256_folder(tmp_path, ["*.py", "b/*.py"]) == expected


def test_the_digests_of_files_load_no_torch() -> None:
    code = "import sys, tunelab.runs.file_digests, tunelab.runs.entry_script; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
