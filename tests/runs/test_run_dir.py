"""The run folder."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tunelab.errors import ConfigError, TuneLabError
from tunelab.runs.run_dir import RunDirectory


def test_the_promised_names(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    files = {
        folder.config: "config.yaml",
        folder.manifest: "run.json",
        folder.metrics: "metrics.json",
        folder.curves: "metrics.csv",
        folder.predictions: "predictions.jsonl",
        folder.best: "checkpoints/best.ckpt",
        folder.last: "checkpoints/last.ckpt",
        folder.export: "export",
        folder.data_report: "data_report.json",
        folder.score_tables: "scores.json",
    }
    assert {path.relative_to(tmp_path).as_posix() for path in files} == set(files.values())


def test_a_new_run_never_overwrites_an_old_one(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path) as folder:
        folder.write_manifest({"status": "running"})
    with pytest.raises(ConfigError, match=r"holds a run already.*resume=.*hydra\.run\.dir"):
        RunDirectory.create(tmp_path)
    assert folder.read_manifest() == {"status": "running"}
    assert not (tmp_path / "run.lock").exists(), "the refused run let go of the lock"


def test_only_one_process_starts_a_run_in_a_folder(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path):
        code = "import sys; from tunelab.runs.run_dir import RunDirectory; RunDirectory.create(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert "another process is writing" in done.stderr


@pytest.mark.parametrize("inner", ["", "absent"])
def test_a_folder_without_a_run_cannot_be_opened(tmp_path: Path, inner: str) -> None:
    with pytest.raises(ConfigError, match="is not a run"):
        RunDirectory.open(tmp_path / inner)


def test_reading_takes_no_lock_and_going_on_does(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path) as folder:
        folder.write_manifest({})
    RunDirectory.open(tmp_path)
    assert not (tmp_path / "run.lock").exists()
    with RunDirectory.open(tmp_path, write=True):
        assert (tmp_path / "run.lock").exists()
    assert not (tmp_path / "run.lock").exists()


def killed_run(root: Path) -> int:
    """A run folder whose process was killed under its lock; returns its process id."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tunelab.runs.run_dir import RunDirectory\n"
        "folder = RunDirectory.create(Path(sys.argv[1]))\nfolder.write_manifest({'model': {'path': 'm'}})\nos._exit(9)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(root)])
    assert process.wait() == 9
    return process.pid


def test_going_on_drops_what_the_killed_run_left_and_nothing_else(tmp_path: Path) -> None:
    pid = killed_run(tmp_path)
    folder = RunDirectory(tmp_path)
    folder.write_predictions_part(3, [{"row": 0}])
    ours = [f".run.json.{pid}.part", f"checkpoints/.last.ckpt.{pid}.part", ".predictions.rank1.jsonl.77.part"]
    theirs = ["movie.part", ".run.json.99999999.part", f".movie.{pid}.part", "checkpoints/notes.part"]
    for name in [*ours, *theirs]:
        (tmp_path / name).write_text("half")
    (tmp_path / f".export.{pid}.part").mkdir()
    (tmp_path / "stuff.part").mkdir()

    with RunDirectory.open(tmp_path, write=True):
        pass

    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"checkpoints", "run.json", "stuff.part", *theirs}


def test_a_new_run_touches_nothing_that_lies_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "stuff.part").mkdir()
    theirs = ["movie.part", ".export.7.part", "predictions.rank0.jsonl", "run.yaml", "stuff.part/a"]
    for name in theirs:
        (tmp_path / name).write_text("mine")

    with RunDirectory.create(tmp_path) as folder:
        folder.write_manifest({})

    assert [(tmp_path / name).read_text() for name in theirs] == ["mine"] * len(theirs)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "export/model.txt", "checkpoints/best.ckpt"])
def test_a_folder_of_something_else_is_refused_where_a_run_would_overwrite_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(
        ConfigError, match=rf"no folder of a run and holds {Path(name).parts[-1].replace('model.txt', 'export')}"
    ):
        RunDirectory.create(tmp_path)

    assert (tmp_path / name).read_text() == "mine" and sorted(tmp_path.rglob("*")) == before


LINKED = ["run.lock", "config.yaml", "metrics.csv", "export", "checkpoints", "checkpoints/last.ckpt", "run.json"]


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_the_place_of_a_file_of_the_run_is_named_and_what_it_points_to_stays(
    name: str, dangling: bool, tmp_path: Path
) -> None:
    root, precious = tmp_path / "run", tmp_path / "precious"
    with RunDirectory.create(root) as folder:
        folder.write_manifest({"model": {"path": "m"}})
    if not dangling:
        precious.mkdir() if name in ("export", "checkpoints") else precious.write_text("mine")
    if name == "checkpoints":
        folder.checkpoints.rmdir()
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(precious)

    for begin in (RunDirectory.create, lambda place: RunDirectory.open(place, write=True)):
        with pytest.raises(ConfigError) as refused:
            begin(root)
        assert f"{root / name} is a link" in str(refused.value) or (name, dangling) == ("run.json", True)

    assert precious.exists() is not dangling
    assert not precious.is_file() or precious.read_text() == "mine"


def test_scores_that_are_not_finite_are_null_in_strict_json(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    folder.write_scores({"test/loss": 0.1 + 0.2, "test/pearson": math.nan, "test/perplexity": math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    stored = json.loads(folder.metrics.read_text(), parse_constant=refuse)
    assert stored == {"test/loss": 0.1 + 0.2, "test/pearson": None, "test/perplexity": None}
    assert math.isnan(folder.read_scores()["test/pearson"])


def test_a_file_the_run_never_wrote_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no metrics\.json"):
        RunDirectory(tmp_path).read_scores()


def test_predictions_keep_every_character(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    rows = [{"row": 0, "text": "a\u2028b\x85c\r\nd é 日本"}, {"row": 1, "text": "half a pair \ud83d"}]
    folder.write_predictions(rows)
    assert folder.read_predictions() == rows
    assert "日本" in folder.predictions.read_text(encoding="utf-8"), "people read this file"


def test_reports_and_tables_come_back_as_written(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    folder.write_data_report({"train": {"records": 3}})
    folder.write_score_tables({"test": {"confusion": [[1, 0], [0, 2]]}})
    assert folder.read_data_report() == {"train": {"records": 3}}
    assert folder.read_score_tables() == {"test": {"confusion": [[1, 0], [0, 2]]}}


def test_curves_leave_out_empty_cells_and_a_torn_line(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    folder.curves.write_text("step,train/loss,val/loss\n0,2.5,\n1,nan,2.25\n2,1.2")
    first, second = folder.read_curves()
    assert first == {"step": 0.0, "train/loss": 2.5}
    assert second["val/loss"] == 2.25
    assert math.isnan(second["train/loss"])


def test_the_shares_of_all_ranks_become_one_ordered_file(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    folder.write_predictions_part(1, [{"row": 3}, {"row": 1}])
    folder.write_predictions_part(0, [{"row": 2}, {"row": 0}])
    assert folder.merge_predictions(4) == folder.read_predictions() == [{"row": row} for row in range(4)]
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.jsonl"], "the shares are gone"


def test_records_dropped_on_the_way_need_no_prediction(tmp_path: Path) -> None:
    folder = RunDirectory(tmp_path)
    folder.write_predictions_part(0, [{"row": 5}, {"row": 2}])
    assert [row["row"] for row in folder.merge_predictions({2, 5})] == [2, 5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 1], r"1 row missing, such as \[2\]"),
        ([0, 1, 2, 1], r"1 row there twice, such as \[1\]"),
        ([0, 1, 2, -1], r"1 row of no record, such as \[-1\]"),
        ([], r"3 rows missing, such as \[0, 1, 2\]"),
    ],
)
def test_shares_that_do_not_cover_the_split_once_are_refused(tmp_path: Path, rows: list[int], message: str) -> None:
    folder = RunDirectory(tmp_path)
    folder.write_predictions_part(0, [{"row": row} for row in rows])
    with pytest.raises(TuneLabError, match=message):
        folder.merge_predictions(3)
    assert not folder.predictions.exists()


def test_a_secret_of_the_environment_reaches_neither_config_nor_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-7f3a9c")
    folder = RunDirectory(tmp_path)
    folder.write_config("logger:\n  note: canary-7f3a9c\n")
    folder.write_manifest({"reason": "server said no to canary-7f3a9c"})
    assert "canary" not in folder.config.read_text() + folder.manifest.read_text()
