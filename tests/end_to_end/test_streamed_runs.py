"""A run that streams its rows resumes at the very example, counts what it drops, and refuses what needs all rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support.resumed_runs import Watch, again, other_weights, stopped_and_resumed, weights, whole
from support.tiny_runs import MODEL, QUIET, WORDS, config, settings, write
from tunelab.config.resume import resume_config
from tunelab.config.validate import validate_config
from tunelab.data import row_streams
from tunelab.errors import ConfigError, DataError
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune


def exchanges(rows: int) -> list[dict[str, Any]]:
    """Instructions whose answers are of uneven length."""
    return [{"instruction": f"say {i}", "output": " ".join(WORDS[: i % 7 + 1])} for i in range(rows)]


def streamed(folder: Path, train: str, *more: str) -> list[str]:
    """Twelve steps of six rows, with dropout, over forty rows that are shuffled eleven at a time."""
    held_out = write(folder / "held_out.jsonl", [{"instruction": f"ask {i}", "output": WORDS[i]} for i in range(5)])
    return [
        "data=instruction", f"data.train={train}", f"data.validation={held_out}", "data.split.test=0", *MODEL, *QUIET,
        "data.streaming=true", "data.shuffle_rows=11", "max_steps=12", "batch_size=6", "micro_tokens=100",
        "regularization.dropout=0.2", "trainer.val_check_interval=5", "trainer.log_every_n_steps=1", "save=false",
        "scheduler=constant", "eval.generate=false", *more,
    ]  # fmt: skip


def as_lines(folder: Path, _: pytest.MonkeyPatch) -> str:
    return str(write(folder / "rows.jsonl", exchanges(40)))


def as_table(folder: Path, _: pytest.MonkeyPatch) -> str:
    lines = ["instruction,output", *(f"{row['instruction']},{row['output']}" for row in exchanges(40))]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "rows.csv")


def as_array(folder: Path, _: pytest.MonkeyPatch) -> str:
    (folder / "rows.json").write_text(json.dumps(exchanges(40)), encoding="utf-8")
    return str(folder / "rows.json")


def as_parquet(folder: Path, _: pytest.MonkeyPatch) -> str:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(exchanges(40)), folder / "rows.parquet", row_group_size=7)
    return str(folder / "rows.parquet")


def as_hub_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set of two shards, which `datasets` streams from files of this machine in place of its hub."""
    import datasets

    files = [str(write(folder / f"shard{n}.jsonl", exchanges(40)[20 * n : 20 * n + 20])) for n in range(2)]
    real = datasets.load_dataset

    def load(name: str, split: str, streaming: bool = False) -> Any:
        assert (name, split) == ("owner/name", "train")
        return real("json", data_files=files, split="train", streaming=streaming, cache_dir=str(folder / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return "owner/name"


@pytest.mark.parametrize(
    "make",
    [as_lines, as_hub_set, *(pytest.param(make, marks=pytest.mark.slow) for make in (as_table, as_array, as_parquet))],
)
def test_a_resumed_stream_is_bit_equal_to_one_that_went_through(
    make: Callable[[Path, pytest.MonkeyPatch], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = streamed(tmp_path, make(tmp_path, monkeypatch))
    watch, one = whole(tmp_path, given)

    # When it is stopped inside the first pass, at its end and behind it
    seen, other = stopped_and_resumed(tmp_path, given, [Watch(1), Watch(5), Watch(9)])

    assert seen == watch.seen and len([entry for entry in seen if entry[0] != "val"]) == 12
    assert not other_weights(one, other)
    counts = [RunDirectory(folder).read_manifest()["data"]["stream"] for folder in (one, other)]
    assert counts[0] == counts[1] == {"rows": 73, "kept": 73, "too_long": 0, "no_target": 0, "unusable": 0,
                                      "truncated": 0, "passes": 1}  # fmt: skip


@pytest.mark.slow
def test_every_source_gives_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for place, make in enumerate((as_lines, as_table, as_parquet, as_hub_set)):
        watch = Watch()
        given = streamed(tmp_path, make(tmp_path, monkeypatch), "max_steps=5")
        fine_tune(settings(*given), tmp_path / str(place), callbacks=[watch])
        losses.append([entry for entry in watch.seen if entry[0] != "val"])
    assert losses[0] == losses[1] == losses[2] == losses[3]


def test_a_finished_stream_that_gets_more_steps_goes_on_as_one_that_never_ended(tmp_path: Path) -> None:
    given = streamed(
        tmp_path, as_lines(tmp_path, pytest.MonkeyPatch()), "data.validation=null", "data.split.validation=0"
    )
    watch, one = whole(tmp_path, given)
    first, last = Watch(), Watch()
    fine_tune(settings(*given, "max_steps=7"), tmp_path / "parts", callbacks=[first])
    longer = [f"resume={tmp_path / 'parts'}", "max_steps=12"]
    fine_tune(validate_config(resume_config(config(*longer), longer)), tmp_path / "parts", callbacks=[last])

    assert first.seen + last.seen == watch.seen
    parts = weights(tmp_path / "parts")
    # but for the mean of an epoch's losses, which began anew where the first run ended
    assert all(torch.equal(weight, parts[name]) for name, weight in weights(one).items() if name.startswith("model."))


def test_rows_that_changed_behind_the_first_ones_are_noticed_on_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_streams, "HEAD_ROWS", 10)
    given = streamed(tmp_path, as_lines(tmp_path, monkeypatch))
    with pytest.raises(SystemExit):
        fine_tune(settings(*given), tmp_path / "run", callbacks=[Watch(3)])
    rows = exchanges(40)
    rows[15]["output"] = "something else"
    write(tmp_path / "rows.jsonl", rows)

    with pytest.raises(DataError, match=r"rows of rows\.jsonl behind row 11 of pass 1 are others"):
        fine_tune(again(tmp_path / "run"), tmp_path / "run")


@pytest.mark.parametrize("bad", [7, ["a"]], ids=["number", "list"])
def test_dropped_rows_are_counted_by_reason_and_a_bad_one_behind_the_first_ones_is_named(
    bad: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(row_streams, "HEAD_ROWS", 10)
    monkeypatch.setattr("tunelab.data.stream_loader.MAX_SKIPPED_SHARE", 0.2)
    rows = exchanges(30)
    rows[20]["output"] = "long " * 200
    rows[25]["instruction"] = bad
    rows[27]["colour"] = "red"
    train = str(write(tmp_path / "rows.jsonl", rows))
    given = streamed(tmp_path, train, "max_steps=5", "data.max_tokens=60")

    with pytest.raises(DataError, match=r"rows\.jsonl line 26: 'instruction' is (int|list)") as fault:
        fine_tune(settings(*given), tmp_path / "strict")
    assert "line 28: column colour is in none of the first rows" in str(fault.value)
    capsys.readouterr()
    fine_tune(settings(*given, "data.on_bad=skip"), tmp_path / "run")

    counts = RunDirectory(tmp_path / "run").read_manifest()["data"]["stream"]
    assert counts == {"rows": 41, "kept": 38, "too_long": 1, "no_target": 0, "unusable": 2, "truncated": 0, "passes": 1}
    said = capsys.readouterr().out
    assert "stream: 41 rows read, dropped: 1 longer than 60 tokens, 2 unusable (data.on_bad=skip)" in said
    assert "skipped: rows.jsonl line 26" in said and "train streamed, validation 5 rows" in said


def test_settings_that_need_all_rows_are_refused_together(tmp_path: Path) -> None:
    refused = ["data.workers=2", "cv.folds=3", "data.group=author", "data.near_duplicates=keep_together",
               "trainer.limit_train_batches=5"]  # fmt: skip
    with pytest.raises(ConfigError) as fault:
        settings("data=instruction", "data.train=x.jsonl", "data.streaming=true", *refused)
    for part in ("without max_steps", "data.split.validation=0.1", "data.split.test=0.1", *refused):
        assert part in str(fault.value)
