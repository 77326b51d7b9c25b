"""Answers generated while a run validates: what they pick, what they leave alone, how many there are."""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import torch

from support.paths import SUPPORT
from support.resumed_runs import CASES, Watch, curves, other_weights, overrides, stopped_and_resumed, trained_once
from support.tiny_runs import MODEL, QUIET, instructions, labelled, settings, write
from tunelab.errors import ConfigError
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.answer_metrics import GenerationEvaluator
from tunelab.training.run import fine_tune

SPLIT = ["data.split.validation=0.2", "data.split.test=0.2"]
SHORT = ["batch_size=8", "max_epochs=2", "lr=3e-3"]
MOODS = ["glad", "sad"]


def given(tmp_path: Path, *more: str) -> list[str]:
    return ["data=instruction", f"data.train={instructions(tmp_path, 40)}", *MODEL, *QUIET, *SPLIT, *SHORT, *more]


def moods(tmp_path: Path) -> Path:
    """Records that are easily learned, with choices."""
    rows = [{"prompt": f"{MOODS[i % 2]} {i}", "completion": MOODS[i % 2], "choices": MOODS} for i in range(80)]
    return write(tmp_path / "moods.jsonl", rows)


def test_the_best_checkpoint_is_picked_by_the_answers_if_they_are_monitored(tmp_path: Path) -> None:
    data = ["data=instruction", f"data.train={moods(tmp_path)}", *MODEL, *QUIET, *SPLIT, "batch_size=8", "lr=3e-3"]
    more = ["max_epochs=12", "monitor=val/exact_match", "callbacks.patience=2"]
    value = fine_tune(settings(*data, *more), tmp_path / "run")

    # Then it is the validation with the most right answers, and the run stopped once they were all right
    folder = RunDirectory(tmp_path / "run")
    curve = [row["val/exact_match"] for row in folder.read_curves() if "val/exact_match" in row]
    best = folder.read_manifest()["best"]
    assert best["monitor"] == "val/exact_match" and best["value"] == pytest.approx(max(curve)) == value
    assert max(curve) > min(curve), "the answers never improved, so nothing was picked"
    assert folder.read_manifest()["status"] == "early-stopped" and len(curve) < 12
    steps = [row["step"] + 1 for row in folder.read_curves() if row.get("val/exact_match") == max(curve)]
    assert best["step"] == steps[0]
    # And records with choices are scored by them, as scikit-learn would
    scores, rows = folder.read_scores(), folder.read_predictions()
    right = sum(row["choice"] == row["label"] for row in rows) / len(rows)
    assert scores["test/accuracy"] == pytest.approx(right)
    assert {"val/accuracy", "val/f1", "val/unmatched", "test/f1", "test/unmatched"} <= scores.keys()
    assert [line["label"] for line in folder.read_score_tables()["test"]["choices"]] == MOODS


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Watch, Path]]:
    """The runs that nothing stopped."""
    return trained_once(tmp_path_factory)


@pytest.mark.parametrize("case", ["in mid-epoch", "while it validates", "with validations inside the epoch"])
def test_answers_in_validation_leave_a_resumed_run_bit_equal(
    case: str, left_alone: Callable[..., tuple[Watch, Path]], tmp_path: Path
) -> None:
    stops, more = CASES[case]
    wanted = [*more, "eval.generate=true", "monitor=val/token_f1"]
    watch, one = left_alone(*wanted)

    seen, other = stopped_and_resumed(tmp_path, overrides(tmp_path, *wanted), stops)

    assert seen == watch.seen
    assert not other_weights(one, other)
    assert curves(one) == curves(other)
    assert RunDirectory(one).read_scores() == RunDirectory(other).read_scores()
    assert any("val/token_f1" in row for row in curves(one))


def test_answers_in_validation_change_nothing_that_is_learned(tmp_path: Path) -> None:
    for folder, generate in (("with", "true"), ("without", "false")):
        dropout = "regularization.dropout=0.1"
        fine_tune(settings(*given(tmp_path, dropout, f"eval.generate={generate}")), tmp_path / folder)

    one, other = (RunDirectory(tmp_path / name) for name in ("with", "without"))
    left, right = (read_checkpoint(folder.last)["state_dict"] for folder in (one, other))
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    losses = [[row["val/loss"] for row in folder.read_curves() if "val/loss" in row] for folder in (one, other)]
    assert losses[0] == losses[1]
    assert "val/exact_match" in one.read_scores() and "val/exact_match" not in other.read_scores()


def test_no_more_rows_are_answered_than_asked_for_and_they_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    real = Instruction.generate_predictions

    def noting(self: Instruction, model: Any, rows: list[int], records: Any) -> list[dict[str, Any]]:
        asked.append(list(rows))
        return real(self, model, rows, records)

    monkeypatch.setattr(Instruction, "generate_predictions", noting)
    more = ["eval.generate_rows=3", "eval.test_rows=2", "eval.batch_size=100", "max_epochs=3"]
    fine_tune(settings(*given(tmp_path, *more)), tmp_path / "run")

    # Three epochs and the best checkpoint, then the test split
    *validations, test = asked
    assert len(validations) == 4 and len({frozenset(rows) for rows in validations}) == 1
    assert len(validations[0]) == 3
    assert sorted(test) == [row["row"] for row in RunDirectory(tmp_path / "run").read_predictions()] and len(test) == 2


def test_no_text_is_kept_in_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Judged(dict[str, Any]):
        """A prediction that can be told from every other dict."""

    left: list[int] = []
    real, compute = Instruction.generate_predictions, GenerationEvaluator.compute

    def marked(self: Instruction, *args: Any) -> list[dict[str, Any]]:
        return [Judged(row) for row in real(self, *args)]

    def counting(self: GenerationEvaluator) -> dict[str, float]:
        gc.collect()
        left.append(sum(isinstance(found, Judged) for found in gc.get_objects()))
        return compute(self)

    monkeypatch.setattr(Instruction, "generate_predictions", marked)
    monkeypatch.setattr(GenerationEvaluator, "compute", counting)
    fine_tune(settings(*given(tmp_path, "test=false", "save=false")), tmp_path / "run")

    assert left == [0, 0, 0]


def test_validation_answers_are_those_of_the_test_pass(tmp_path: Path) -> None:
    # Given one file to validate and to test on, and a batch size that cuts it unevenly
    path = instructions(tmp_path, 23)
    same = [f"data.validation={path}", f"data.test={path}", "eval.batch_size=5", "eval.generate_rows=null"]
    fine_tune(settings(*given(tmp_path, *same)), tmp_path / "run")

    scores = RunDirectory(tmp_path / "run").read_scores()
    for name in ("exact_match", "token_f1", "rougeL", "unfinished"):
        assert scores[f"val/{name}"] == pytest.approx(scores[f"test/{name}"], rel=1e-6), name


def test_a_monitored_answer_score_that_is_switched_off_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for off in ("eval.generate=false", "eval.generate_rows=0"):
        with pytest.raises(ConfigError, match=r"monitor=val/exact_match.*set eval.generate=auto"):
            fine_tune(settings(*given(tmp_path, "monitor=val/exact_match", off)), tmp_path / off)
    with pytest.raises(ConfigError, match="val/token_f1"):
        fine_tune(settings(*given(tmp_path, "monitor=val/exactmatch")), tmp_path / "typo")
    texts = write(tmp_path / "texts.jsonl", [{"text": f"red blue {i}"} for i in range(40)])
    with pytest.raises(ConfigError, match="no validation record asks anything"):
        fine_tune(settings(*given(tmp_path, f"data.train={texts}", "eval.generate=true")), tmp_path / "texts")


def test_plain_texts_are_validated_without_answers(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.jsonl", [{"text": f"red blue {i}"} for i in range(40)])
    fine_tune(settings(*given(tmp_path, f"data.train={texts}")), tmp_path / "run")

    scores = RunDirectory(tmp_path / "run").read_scores()
    assert "test/loss" in scores and not [name for name in scores if "exact_match" in name]


@pytest.mark.parametrize("kind", ["classification", "regression", "instruction"])
def test_the_model_before_training_is_scored_for_every_task_on_request(kind: str, tmp_path: Path) -> None:
    column = {"classification": ["data.label=label"], "regression": ["data.target=number"], "instruction": []}[kind]
    data = [f"data={kind}", f"data.train={labelled(tmp_path)}", "data.text=text", *column]
    if kind == "instruction":
        data = ["data=instruction", f"data.train={instructions(tmp_path, 40)}"]
    fine_tune(settings(*data, *MODEL, *QUIET, *SPLIT, *SHORT, "eval.base=true"), tmp_path / "run")

    scores = RunDirectory(tmp_path / "run").read_scores()
    base = {name.removeprefix("base/") for name in scores if name.startswith("base/")}
    assert base == {name.removeprefix("test/") for name in scores if name.startswith("test/")}
    assert scores["base/loss"] != scores["test/loss"]


def test_families_and_sources_have_tables_for_the_base_and_the_tuned_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": f"say {i}", "completion": "red", "family": "fg"[i % 2], "source": "a" if i % 3 else "b"}
        for i in range(60)
    ]
    data = ["data=instruction", f"data.train={write(tmp_path / 'rows.jsonl', rows)}"]
    fine_tune(settings(*data, *MODEL, *QUIET, *SPLIT, *SHORT, "eval.base=true"), tmp_path / "run")

    tables, told = RunDirectory(tmp_path / "run").read_score_tables(), capsys.readouterr().out
    count = len(RunDirectory(tmp_path / "run").read_predictions())
    for split in ("base", "test"):
        for key, names in (("by_family", {"f", "g"}), ("by_source", {"a", "b"})):
            assert tables[split][key].keys() == names
            assert sum(line["rows"] for line in tables[split][key].values()) == count
    assert "test answers by family" in told and "test answers by source" in told and "base exact_match" in told


@pytest.mark.slow
def test_two_processes_score_the_answers_of_one_whatever_the_batch(tmp_path: Path) -> None:
    script, found = SUPPORT / "validate_answers_on_ranks.py", {}
    for devices, size in ((1, 64), (1, 3), (2, 8)):
        target = tmp_path / f"{devices}_{size}.json"
        command = [sys.executable, str(script), str(devices), str(size), str(target)]
        done = run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-2000:]
        found[devices, size] = json.loads(target.read_text())

    one = found[1, 64]
    assert one["val/exact_match"] == pytest.approx(7 / 22)  # rows 3, 6, ..., 21 of 1 to 22
    for other in (found[1, 3], found[2, 8]):
        for name in ("val/exact_match", "val/token_f1", "val/rougeL", "val/unfinished"):
            assert other[name] == one[name], name
