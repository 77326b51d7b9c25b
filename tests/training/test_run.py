"""One run from end to end, for each kind of work: what it leaves, and that it repeats."""

import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from support.tiny_runs import MODEL, QUIET, instructions, labelled, settings
from tunelab.errors import ConfigError, DataError, Diverged
from tunelab.runs.checkpoint import read_checkpoint, weights_sha256
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

SPLIT = ["data.split.validation=0.2", "data.split.test=0.2"]


def task(name: str, tmp_path: Path) -> list[str]:
    """The overrides of a small run of one kind of work."""
    small = [*MODEL, *QUIET, *SPLIT, "batch_size=8", "max_epochs=2", "lr=3e-3"]
    if name == "instruction":
        return ["data=instruction", f"data.train={instructions(tmp_path, 40)}", *small]
    column = {"classification": "data.label=label", "regression": "data.target=number"}[name]
    return [f"data={name}", f"data.train={labelled(tmp_path)}", "data.text=text", column, *small]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDirectory]:
    """The small run of a kind of work, trained once for all tests, which only read it."""

    @cache
    def run(name: str) -> RunDirectory:
        place = tmp_path_factory.mktemp(name)
        fine_tune(settings(*task(name, place)), place / "run")
        return RunDirectory(place / "run")

    return run


@pytest.mark.parametrize("name", ["instruction", "classification", "regression"])
def test_a_run_leaves_all_that_is_promised(name: str, done: Callable[[str], RunDirectory]) -> None:
    folder = done(name)
    names = {path.name for path in folder.root.iterdir()}
    assert {"config.yaml", "run.json", "metrics.json", "metrics.csv", "predictions.jsonl", "checkpoints"} <= names
    assert folder.best.is_file() and folder.last.is_file()
    card, scores = folder.read_manifest(), folder.read_scores()
    assert card["status"] == "finished" and card["scores"]["test"]["loss"] == scores["test/loss"]
    wanted = {
        "instruction": {"perplexity", "token_accuracy", "exact_match", "rougeL"},
        "classification": {"accuracy", "f1", "precision", "recall", "mcc"},
        "regression": {"mse", "mae", "r2", "pearson", "spearman"},
    }
    assert {f"test/{score}" for score in wanted[name]} <= scores.keys()
    assert {"train/loss", "val/loss"} <= scores.keys()
    assert not list(folder.root.glob("**/*.part"))

    # And the export is the model of the best checkpoint, for plain transformers
    auto = AutoModelForCausalLM if name == "instruction" else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder.export)
    AutoTokenizer.from_pretrained(folder.export)
    body = {k.removeprefix("model."): v for k, v in read_checkpoint(folder.best)["state_dict"].items()}
    key = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[key], body[key])


def test_the_card_of_a_real_run_names_all_a_number_rests_on_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKER_API_KEY", "canary-0123456789")
    given = task("classification", tmp_path)
    fine_tune(settings(*given, "name=canary-0123456789"), tmp_path / "run", overrides=["note=canary-0123456789"])

    folder = RunDirectory(tmp_path / "run")
    card = folder.read_manifest()
    data = tmp_path / "labelled.jsonl"
    assert card["data"]["files"] == {str(data): hashlib.sha256(data.read_bytes()).hexdigest()}
    assert len(card["model"]["tokenizer_sha256"]) == len(card["code_sha256"]) == 64
    assert card["directory"] == os.getcwd()
    best = read_checkpoint(folder.best)["state_dict"]
    assert card["results"]["weights_sha256"] == weights_sha256(best)
    assert card["results"]["predictions_sha256"] == hashlib.sha256(folder.predictions.read_bytes()).hexdigest()
    assert set(card["energy"]) == {"processor_joules", "gpu_joules"}
    flat = {f"{split}/{name}": value for split, scores in card["scores"].items() for name, value in scores.items()}
    assert flat == folder.read_scores()
    written = [path for path in folder.root.rglob("*") if path.suffix in {".json", ".yaml", ".jsonl", ".csv", ".md"}]
    assert len(written) > 6
    assert not [path.name for path in written if "canary-0123456789" in path.read_text()]


def test_a_run_that_cannot_begin_says_why_and_leaves_its_place_free(tmp_path: Path) -> None:
    given = task("classification", tmp_path)
    with pytest.raises(DataError):
        fine_tune(settings(*given, "data.train=missing.csv"), tmp_path / "run")
    card = RunDirectory(tmp_path / "run").read_manifest()
    assert card["status"] == "failed" and "missing.csv" in card["reason"]

    fine_tune(settings(*given, "max_steps=1"), tmp_path / "run")

    assert RunDirectory(tmp_path / "run").read_manifest()["status"] == "finished"


def test_one_flipped_bit_of_a_weight_is_another_sha256() -> None:
    state = {"b": torch.ones(2, 3), "a": torch.zeros((), dtype=torch.bfloat16)}
    changed = {**state, "b": state["b"].clone()}
    changed["b"].view(torch.int32)[1, 2] ^= 1
    assert weights_sha256(state) == weights_sha256(dict(reversed(state.items())))
    assert len({weights_sha256(s) for s in (state, changed, {**state, "b": torch.ones(3, 2)})}) == 3


def test_written_predictions_give_the_scores_that_scikit_learn_and_scipy_compute(
    done: Callable[[str], RunDirectory],
) -> None:
    folder = done("classification")
    rows, scores = folder.read_predictions(), folder.read_scores()
    real, guessed = [row["label"] for row in rows], [row["prediction"] for row in rows]
    assert scores["test/accuracy"] == pytest.approx(accuracy_score(real, guessed))
    assert scores["test/f1"] == pytest.approx(f1_score(real, guessed, average="macro"))
    known = folder.read_score_tables()["test"]["labels"]
    macro = f1_score(real, guessed, labels=known, average="macro", zero_division=0)
    assert scores["test/f1_all"] == pytest.approx(macro)

    folder = done("regression")
    rows = folder.read_predictions()
    found = pearsonr([row["target"] for row in rows], [row["prediction"] for row in rows]).statistic
    assert folder.read_scores()["test/pearson"] == pytest.approx(found)


def test_the_same_seed_repeats_bit_for_bit_and_another_differs(tmp_path: Path) -> None:
    given = [*task("instruction", tmp_path), "regularization.dropout=0.1"]
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        fine_tune(settings(*given, f"seed={seed}"), tmp_path / folder)

    a, b, c = (read_checkpoint(tmp_path / folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert RunDirectory(tmp_path / "a").read_scores() == RunDirectory(tmp_path / "b").read_scores()
    assert not torch.equal(a["model.model.embed_tokens.weight"], c["model.model.embed_tokens.weight"])


class Worsen(Callback):
    """Blows up the weights when an epoch begins, as a rate that is too high would."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 2:
            for weight in pl_module.model.parameters():
                weight.data *= 4


def test_validation_scores_are_those_of_the_best_checkpoint(tmp_path: Path) -> None:
    # Given a run whose last epoch is worse than the two before
    given = settings(*task("instruction", tmp_path), "max_epochs=3")
    found = fine_tune(given, tmp_path / "run", callbacks=[Worsen()])

    folder = RunDirectory(tmp_path / "run")
    curve = [row["val/loss"] for row in folder.read_curves() if "val/loss" in row]
    assert curve[-1] > min(curve) + 0.1
    assert folder.read_scores()["val/loss"] == pytest.approx(min(curve), rel=1e-6) == found
    assert folder.read_manifest()["best"]["value"] == min(curve)


class Spoil(Callback):
    """Makes one weight infinite at a step, as an overflow would."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 5:
            next(pl_module.model.parameters()).data[0] = float("inf")


def test_a_run_that_diverges_says_so_and_its_model_is_never_best(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="stopped at step 5") as told:
        fine_tune(settings(*task("instruction", tmp_path), "max_epochs=4"), tmp_path / "run", callbacks=[Spoil()])

    folder = RunDirectory(tmp_path / "run")
    assert told.value.exit_status == 1
    assert folder.read_manifest()["status"] == "diverged"
    best = read_checkpoint(folder.best)["state_dict"]
    assert all(torch.isfinite(weight).all() for weight in best.values())


def test_the_test_split_is_left_alone_until_training_is_over(tmp_path: Path) -> None:
    # Given two runs whose test files differ in everything, texts, number and shares of labels
    given = [*task("classification", tmp_path), "data.class_weights=balanced"]
    for folder, labels in (("a", ["red", "blue", "green"] * 3), ("b", ["red"] * 9 + ["blue"] * 3)):
        test = tmp_path / f"{folder}.jsonl"
        rows = [{"text": f"{folder} {i}", "label": label} for i, label in enumerate(labels)]
        test.write_text("".join(json.dumps(row) + "\n" for row in rows))
        fine_tune(settings(*given, f"data.test={test}"), tmp_path / folder)

    # Then everything that training and selection saw is equal
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (read_checkpoint(tmp_path / folder / "checkpoints" / name) for folder in "ab")
        assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])
    one, two = (RunDirectory(tmp_path / folder) for folder in "ab")
    assert one.read_manifest()["best"] == two.read_manifest()["best"]
    learned = [[row[n] for row in f.read_curves() for n in row if n.startswith("val/")] for f in (one, two)]
    assert learned[0] == learned[1] and learned[0]
    assert one.read_scores()["test/loss"] != two.read_scores()["test/loss"]


def test_without_a_validation_split_the_last_weights_are_kept_and_none_is_borrowed(tmp_path: Path) -> None:
    given = [*task("classification", tmp_path), "data.split.validation=0"]
    fine_tune(settings(*given), tmp_path / "run")

    folder = RunDirectory(tmp_path / "run")
    scores, rows = folder.read_scores(), folder.read_curves()
    assert not [name for row in [scores, *rows] for name in row if name.startswith("val/")]
    assert "test/f1" in scores
    best, last = (read_checkpoint(path)["state_dict"] for path in (folder.best, folder.last))
    assert all(torch.equal(best[name], last[name]) for name in last)


def test_a_folder_that_holds_a_run_is_not_overwritten(done: Callable[[str], RunDirectory], tmp_path: Path) -> None:
    folder = done("classification").root
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    with pytest.raises(ConfigError, match="holds a run already"):
        fine_tune(settings(*task("classification", tmp_path)), folder)

    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_label_that_training_never_saw_is_refused_by_name(tmp_path: Path) -> None:
    unseen = tmp_path / "unseen.jsonl"
    unseen.write_text('{"text": "a", "label": "purple"}\n')

    with pytest.raises(DataError, match="unseen.jsonl line 1.*purple"):
        fine_tune(settings(*task("classification", tmp_path), f"data.test={unseen}"), tmp_path / "run")
