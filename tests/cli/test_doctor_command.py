"""`tunelab doctor` reads a run that trains, one that is over, and none."""

import json
from pathlib import Path

import pytest

from tunelab.cli.main import main
from tunelab.runs.run_dir import RunDirectory


def run_folder(root: Path, status: str) -> RunDirectory:
    """A run whose loss rises."""
    with RunDirectory.create(root) as folder:
        folder.write_manifest({"status": status, "model": {"path": "m"}, "config": {"monitor": "val/loss"}})
        lines = [f"{step},0,{1 + step / 10}" for step in range(20)]
        folder.curves.write_text("\n".join(["step,epoch,train/loss", *lines, "20,0,0.0"]))  # the last is half written
    return folder


@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_run_is_read_and_only_one_that_is_over_is_written_to(
    status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", status)
    for words, wanted in ((["doctor", str(folder.root)], 0), (["doctor", "--strict", str(folder.root)], 3)):
        with pytest.raises(SystemExit) as leave:
            main(words)
        assert leave.value.code == wanted

    assert "rate_too_high: the training loss rose from 1.05 to 2.75" in capsys.readouterr().out
    assert folder.doctor_findings.exists() == (status == "finished")
    if status == "finished":
        left = json.loads(folder.doctor_findings.read_text())
        assert (left["last_step"], left["findings"][0]["verdict"]) == (19, "rate_too_high")


def test_a_folder_without_a_run_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["doctor", str(tmp_path)])
    assert leave.value.code == 2
