"""Places that cannot be written to, and runs that are not there, are reported in one message with exit status 2."""

import errno
from pathlib import Path

import pytest

from support import warm_processes
from support.paths import ROOT
from support.tiny_runs import QUIET, config
from tunelab.cli.launch import exit_with_os_error
from tunelab.config.overrides import complete_overrides
from tunelab.config.resume import find_config_file, resume_config
from tunelab.errors import ConfigError


def test_a_file_where_the_run_folder_should_be_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes.txt"
    file.touch()
    for place in (file, file / "run"):
        with pytest.raises(OSError) as met:
            place.mkdir()
        with pytest.raises(SystemExit) as left:
            exit_with_os_error(met.value)

        assert left.value.code == 2
        assert f"cannot use {place}: " in (told := capsys.readouterr().err) and "hydra.run.dir=DIR" in told


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_a_place_that_takes_no_files_is_the_users_to_change(number: int) -> None:
    with pytest.raises(SystemExit, match="2"):
        exit_with_os_error(OSError(number, "no", "/some/where"))


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "disk quota exceeded"), (errno.EFBIG, "ulimit -f")],
)
@pytest.mark.parametrize("place", [(), ("", "/no/such/folder/curves.csv")], ids=["unnamed", "named"])
def test_a_full_disk_a_quota_and_a_limit_are_called_what_they_are(
    number: int, reason: str, place: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        exit_with_os_error(OSError(number, "no", *place[1:]))

    message = capsys.readouterr().err
    assert reason in message and message.count("\n") == 1 and (place or ("", ""))[1] in message


def test_a_folder_that_the_system_makes_itself_takes_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        exit_with_os_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x"))
    assert "cannot use /proc/x" in capsys.readouterr().err


def test_an_error_of_the_system_that_names_no_place_is_a_line_and_its_traceback_is_shown_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="1"):
        exit_with_os_error(BrokenPipeError(errno.EPIPE, "broken"))
    line = capsys.readouterr().err
    assert "BrokenPipeError: [Errno 32] broken" in line and "--debug" in line and "Traceback" not in line

    monkeypatch.setenv("TUNELAB_DEBUG", "1")
    with pytest.raises(SystemExit, match="1"):
        exit_with_os_error(BrokenPipeError(errno.EPIPE, "broken"))
    assert "BrokenPipeError" in capsys.readouterr().err


def test_going_on_with_a_run_that_is_not_there_makes_no_folder_and_names_one_like_it(tmp_path: Path) -> None:
    (tmp_path / "first_run").mkdir()

    with pytest.raises(ConfigError, match=r"no run \(no such folder\); near it are first_run"):
        complete_overrides([f"resume={tmp_path / 'frist_run'}"])
    assert not (tmp_path / "frist_run").exists()
    with pytest.raises(ConfigError, match=r"no config\.yaml in it"):
        find_config_file(tmp_path / "first_run")


@pytest.mark.parametrize(
    "content", ["lr: [", "3", "- a", "x: 1", "\x00"], ids=["cut", "number", "list", "other", "nul"]
)
def test_settings_that_are_damaged_are_told_with_a_way_out(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)

    with pytest.raises(ConfigError, match=r"config\.yaml (cannot be read|holds no settings).*backup"):
        resume_config(config(f"resume={tmp_path}"), [])


@pytest.mark.parametrize(
    "fault",
    [
        "data.train=missing.jsonl",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("batch_size=0", "monitor=val/nothing")),
    ],
)
def test_a_refused_run_leaves_no_folder_behind(fault: str, tmp_path: Path) -> None:
    words = ["data=instruction", "data.train=missing.jsonl", *QUIET, fault]
    done = warm_processes.run([ROOT / "train.py", *words], tmp_path)
    assert done.returncode == 2
    assert not list(tmp_path.glob("outputs/*"))
