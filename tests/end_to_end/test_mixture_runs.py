"""Runs over several sources: exact losses of each, exact counts, exact resume."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from support.paths import SUPPORT
from support.resumed_runs import Watch, again, curves, other_weights
from support.tiny_runs import MODEL, QUIET, WORDS, settings, write
from tunelab.data.data_sources import read_splits
from tunelab.errors import ConfigError
from tunelab.runs.run_dir import RunDirectory
from tunelab.tasks.base import SourceScores
from tunelab.training.components import build_components, build_datamodule, build_module, encode_data
from tunelab.training.run import fine_tune


def sources(folder: Path) -> dict[str, Path]:
    """Three files in three layouts, and a validation file for each."""
    made = {}
    for part, rows in (("", 13), ("_val", 7)):
        alpaca = [
            {"instruction": f"say{part} {WORDS[i % 10]}", "output": " ".join([WORDS[i % 10]] * (i % 5 + 1))}
            for i in range(rows)
        ]
        asked = [{"question": f"what{part} {i}", "answer": " ".join(WORDS[: i % 4 + 1])} for i in range(rows + 3)]
        plain = [{"text": f"plain{part} {' '.join(WORDS[i % 10 :])} {i}", "instruction": "ignored"} for i in range(5)]
        for name, records in (("a", alpaca), ("b", asked), ("c", plain)):
            made[f"{name}{part}"] = write(folder / f"{name}{part}.jsonl", records)
    return made


def mixed(folder: Path, weight_of: dict[str, float] | None = None, *more: str) -> list[str]:
    """A command line over the three."""
    files, weight_of = sources(folder), {"a": 1.0, "b": 1.0, "c": 1.0} | (weight_of or {})
    own = {"a": "", "b": ", columns: {prompt: question, completion: answer}", "c": ", format: text"}
    entries = [
        f"{name}: {{train: {files[name]}, validation: {files[f'{name}_val']}, weight: {weight_of[name]}{own[name]}}}"
        for name in own
    ]
    return [
        "data=instruction", f"data.mix={{{', '.join(entries)}}}", "data.split.test=0", *MODEL, *QUIET, "batch_size=6",
        "micro_tokens=60", "seed=1", "save=false", "eval.generate=false", "trainer.log_every_n_steps=1", *more,
    ]  # fmt: skip


def validated(given: list[str]) -> dict[str, float]:
    """Scores of the untrained model on validation."""
    prepared = build_components(settings(*given))
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip
    module = build_module(prepared, prepared.model)
    (found,) = trainer.validate(module, datamodule=build_datamodule(prepared), verbose=False)
    return {name: float(value) for name, value in found.items()}


def alone(folder: Path, name: str) -> list[str]:
    """A command line over one of the sources."""
    own = {"a": [], "b": ["data.columns.prompt=question", "data.columns.completion=answer"], "c": ["data.format=text"]}
    files = sources(folder)
    return [
        "data=instruction", f"data.train={files[name]}", f"data.validation={files[name + '_val']}", *own[name],
        "data.split.test=0", *MODEL, *QUIET, "seed=1",
    ]  # fmt: skip


def test_the_loss_of_each_source_is_that_of_a_validation_on_it_alone(tmp_path: Path) -> None:
    # Given one model, validated on each source by itself
    separate = {f"val/{name}/loss": validated(alone(tmp_path, name))["val/loss"] for name in ("a", "b", "c")}
    assert len({round(loss, 4) for loss in separate.values()}) == 3

    # When it is validated on all three at once, in large and small batches, then each loss is the same
    for size in ("eval.batch_size=64", "eval.batch_size=5"):
        together = validated(mixed(tmp_path, None, size))
        assert {name: together[name] for name in separate} == pytest.approx(separate, abs=1e-6)


def rows_of(given: list[str], epoch: int) -> list[list[int]]:
    """The records of each step of an epoch."""
    loader = build_datamodule(build_components(settings(*given))).loader("train")
    loader.set_epoch(epoch)
    return [sorted(row for micro in step.micro_batches for row in micro.row_indices.tolist()) for step in loader]


def test_weights_give_the_exact_counts_in_every_epoch(tmp_path: Path) -> None:
    given = mixed(tmp_path, {"a": 2.0, "b": 0.5, "c": 1.4})
    for epoch in range(3):
        counts = Counter(row for step in rows_of(given, epoch) for row in step)

        assert [counts[row] for row in range(13)] == [2] * 13
        assert sum(counts[row] for row in range(13, 29)) == 8 and max(counts[row] for row in range(13, 29)) == 1
        assert sorted(counts[row] for row in range(29, 34)) == [1, 1, 1, 2, 2]
    encoded = encode_data(settings(*given))
    assert encoded.epoch_rows == 26 + 8 + 7
    assert rows_of(given, 0) == rows_of(given, 0) != rows_of(given, 1)


def test_equal_weights_are_the_files_in_one(tmp_path: Path) -> None:
    # Given two files, as a mix and as one file
    files = [
        write(tmp_path / f"{name}.jsonl", [{"text": f"{name} {word} {i}"} for i in range(3) for word in WORDS])
        for name in "pq"
    ]
    joined = tmp_path / "joined.jsonl"
    joined.write_text("".join(file.read_text() for file in files))
    base = ["data=instruction", *MODEL, *QUIET, "batch_size=8", "seed=5"]
    one, two = (
        build_components(settings(*base, given))
        for given in (f"data.train={joined}", f"data.mix=[{files[0]},{files[1]}]")
    )

    # Then splits, steps and order are the same
    for split in ("train", "validation", "test"):
        assert one.sources.splits[split].rows == two.sources.splits[split].rows
    loaders = [build_datamodule(prepared).loader("train") for prepared in (one, two)]
    assert loaders[0].identity == loaders[1].identity
    for left, right in zip(*loaders, strict=True):
        assert all(a.ids.equal(b.ids) for a, b in zip(left.micro_batches, right.micro_batches, strict=True))


def test_a_run_follows_the_loss_of_one_source_and_shows_all(tmp_path: Path) -> None:
    score = fine_tune(settings(*mixed(tmp_path, None, "max_epochs=2", "monitor=val/b/loss")), tmp_path / "run")

    folder = RunDirectory(tmp_path / "run")
    scores = folder.read_scores()
    assert score == scores["val/b/loss"] != scores["val/loss"]
    assert {"val/a/loss", "val/b/loss", "val/c/loss"} <= scores.keys()
    assert json.loads(folder.manifest.read_text())["best"]["monitor"] == "val/b/loss"
    assert sum("val/c/loss" in row for row in folder.read_curves()) == 2
    assert folder.read_data_report()["sources"]["train"] == {"a": 13, "b": 16, "c": 5}


def test_a_source_without_validation_rows_cannot_be_followed(tmp_path: Path) -> None:
    given = mixed(tmp_path, None, "monitor=val/d/loss")

    with pytest.raises(ConfigError, match=r"monitor=val/d/loss.*val/a/loss, val/b/loss, val/c/loss"):
        fine_tune(settings(*given), tmp_path / "run")


def test_a_resumed_mix_is_bit_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    given = mixed(tmp_path, {"a": 2.0, "b": 0.5}, "max_epochs=3", "regularization.dropout=0.2")
    whole, parts, rest = Watch(), Watch(9), Watch()  # seven steps an epoch: 26 + 8 + 5 rows, six at a time
    fine_tune(settings(*given), tmp_path / "whole", callbacks=[whole])

    with pytest.raises(SystemExit):
        fine_tune(settings(*given), tmp_path / "parts", callbacks=[parts])
    fine_tune(again(tmp_path / "parts"), tmp_path / "parts", callbacks=[rest])

    assert parts.seen + rest.seen == whole.seen
    assert len([entry for entry in whole.seen if entry[0] != "val"]) == 21
    assert not other_weights(tmp_path / "whole", tmp_path / "parts")
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")


def test_texts_that_stand_in_two_sources_are_told_and_share_a_side(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}"} for i in range(40)]
    files = [write(tmp_path / "p.jsonl", rows), write(tmp_path / "q.jsonl", [*rows[10:], {"text": "own"}])]
    run = settings("data=instruction", f"data.mix=[{files[0]},{files[1]}]", "data.split.validation=0.3", *MODEL, *QUIET)
    from tunelab.training.components import build_task

    found = read_splits(run.data, build_task(run), seed=0)

    assert "30 texts occur in the sources p and q" in found.notes
    sides = {name: {row["text"] for row in split.rows} for name, split in found.splits.items()}
    assert not sides["train"] & sides["validation"] and not sides["train"] & sides["test"]
    assert not any("a score there measures memory" in note for note in found.notes)


def test_classes_of_several_sources_are_one_set(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"text": f"{WORDS[i % 10]} {i}", "label": "xy"[i % 2]} for i in range(30)])
    other = write(tmp_path / "other.jsonl", [{"said": f"{WORDS[i % 10]} {i}!", "kind": "yz"[i % 2]} for i in range(30)])
    given = [
        "data=classification", "data.text=text", "data.label=label", *MODEL, *QUIET, "max_epochs=1", "save=false",
        "data.split={validation: 0.3, test: 0.3}",
        f"data.mix={{one: {one}, other: {{train: {other}, columns: {{text: said, label: kind}}}}}}",
    ]  # fmt: skip
    fine_tune(settings(*given), tmp_path / "run")

    scores = RunDirectory(tmp_path / "run").read_scores()
    assert {"val/one/loss", "val/other/loss", "test/one/loss", "test/other/loss"} <= scores.keys()


def test_a_micro_batch_of_two_sources_is_refused() -> None:
    from tunelab.data.examples import MicroBatch
    from tunelab.tasks.metrics.token_metrics import TokenScores

    scores = SourceScores(TokenScores, ["a", "b"], ["a", "b"])
    micro: Any = MicroBatch(torch.zeros(2, 1), torch.ones(2), torch.zeros(2, 1), torch.tensor([0, 1]))

    with pytest.raises(ValueError, match="mixes the sources a, b"):
        scores.update(torch.zeros(2, 3), micro)


@pytest.mark.slow
def test_two_processes_find_the_losses_that_one_finds(tmp_path: Path) -> None:
    given = mixed(tmp_path, None, "eval.batch_size=5")
    for devices in (1, 2):
        script, target = SUPPORT / "validate_mixture_on_ranks.py", tmp_path / str(devices)
        command = [sys.executable, str(script), str(devices), str(target), *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (json.loads((tmp_path / str(devices)).read_text()) for devices in (1, 2))

    assert {"val/loss", "val/a/loss", "val/b/loss", "val/c/loss"} <= one.keys()
    assert one == pytest.approx(two, rel=1e-6)
