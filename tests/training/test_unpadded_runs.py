"""Whole runs on labels and numbers learn, score and predict the same with texts end to end as with padded rows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from support.tiny_models import ENCODERS, saved
from support.tiny_runs import labelled, settings
from tunelab import api
from tunelab.data.examples import Example, MicroBatch
from tunelab.runs.run_dir import RunDirectory
from tunelab.tasks.classification import Classification
from tunelab.training.run import fine_tune

LABELS = ["data=classification", "data.label=label"]
NUMBERS = ["data=regression", "data.target=number"]
QUIET = ["logger=none", "trainer.enable_progress_bar=false", "callbacks.train_eval_rows=0"]
STILL = "regularization=dropout", "regularization.dropout=0"  # nothing is dropped, so both must agree


def trained(tmp_path: Path, *words: str, family: str = "bert", rows: int = 40) -> RunDirectory:
    """A run of three steps on texts of uneven length."""
    tmp_path.mkdir(exist_ok=True)
    model = saved(family, tmp_path, AutoModelForSequenceClassification, ENCODERS[family])
    own = ["data.text=text", f"data.train={labelled(tmp_path, rows)}", "model=pretrained", f"model.path={model}"]
    more = ["max_steps=3", "batch_size=8", "optimizer=sgd", "lr=0.1", "data.near_duplicates=null", "data.max_unknown=1"]
    fine_tune(settings(*own, *more, *words, *QUIET), tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def weights_and_scores(folder: RunDirectory) -> tuple[dict[str, Tensor], dict[str, float]]:
    return load_file(folder.export / "model.safetensors"), json.loads(folder.metrics.read_text())


@pytest.mark.parametrize(("family", "task"), [("bert", LABELS), ("roberta", NUMBERS)])
def test_a_run_learns_scores_and_predicts_the_same_end_to_end(
    family: str, task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, headers = [], []
    for packing in ("false", "auto"):
        runs.append(trained(tmp_path / packing, *task, *STILL, f"data.packing={packing}", family=family))
        headers.append(" ".join(capsys.readouterr().out.split()))
    (padded, plain), (weights, scores) = map(weights_and_scores, runs)

    assert "packing: off, rows are padded: data.packing=false" in headers[0]
    assert "packing: on" in headers[1]
    for name in ("val/loss", "test/loss"):
        assert scores[name] == pytest.approx(plain[name], rel=1e-4), name
    for name, weight in padded.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-5)
    asked: list[dict[str, Any]] = [{"text": "red"}, {"text": "blue green gold grey pink teal 7"}, {"text": ""}]
    first, second = (api.load(folder.root).predict(asked) for folder in runs)
    assert [set(row) for row in first] == [set(row) for row in second]
    assert "error" in second[2]
    if task is LABELS:
        for one, other in zip(first[:2], second[:2], strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
    else:
        assert [row["prediction"] for row in second[:2]] == pytest.approx(
            [row["prediction"] for row in first[:2]], 1e-3
        )


def test_every_noise_of_the_forward_pass_works_on_texts_end_to_end(tmp_path: Path) -> None:
    noise = ["stochastic_depth=0.3", "rdrop=1.0", "neftune=5.0", "mixout=0.3", "dropout=0.1"]
    given = [f"regularization.{each}" for each in noise]
    folder = trained(tmp_path, *LABELS, *given, "data.packing=true")
    assert all(value == value for value in weights_and_scores(folder)[1].values())


def test_the_header_says_why_rows_are_padded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, *LABELS, "model.attention=sdpa", "test=false", "save=false")
    assert "packing: off, rows are padded: model.attention=sdpa" in " ".join(capsys.readouterr().out.split())


def test_a_task_that_lays_out_its_own_rows_gets_them_padded() -> None:
    class Mine(Classification):
        def collate(self, examples: Any) -> MicroBatch:
            return super().collate([Example([0, *e.ids], e.target, e.loss_weight, e.row) for e in examples])

    assert Classification.can_pack() and not Mine.can_pack()
