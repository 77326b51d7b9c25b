"""Whole runs under each method: they learn, and their validation loss is the plain one, so that runs compare."""

import logging
import sys
import warnings
from pathlib import Path
from subprocess import run

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.tiny_models import SIZE, saved
from support.tiny_runs import MODEL, QUIET, instructions, labelled, settings
from tunelab.data.examples import IGNORE
from tunelab.regularization.penalties import trainable_linear_weights
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training import components
from tunelab.training.run import fine_tune

METHODS = {
    "none": [],
    "l1": [],
    "l2": [],
    "elastic": [],
    "dropout": [],
    "label_smoothing": [],
    "rdrop": [],
    "mixout": [],
    "neftune": [],
    "stochastic_depth": [],
    "max_norm": ["regularization.max_norm=1"],
    "ema": ["regularization.ema=0.8"],
    "swa": ["regularization.swa_start=0.5"],
    "strong": ["regularization.ema=0.8"],
    "[label_smoothing,rdrop,mixout,neftune,stochastic_depth,ema]": ["regularization.ema=0.8"],
}


def small(tmp_path: Path, method: str, *more: str) -> list[str]:
    """Twenty steps on a saved random model, so that there is something pretrained."""
    base = saved("llama", tmp_path, AutoModelForCausalLM, {**SIZE, "initializer_range": 0.05})
    return [
        "data=instruction", f"data.train={instructions(tmp_path)}", f"model.path={base}", "model=pretrained", *QUIET,
        "batch_size=6", "max_epochs=5", "lr=1e-2", "data.split.validation=0.2", "data.split.test=0", "seed=1",
        "eval.generate=false", "micro_tokens=200", f"regularization={method}", *more,
    ]  # fmt: skip


def by_plain_transformers(export: Path, given: list[str]) -> float:
    """Loss per token of the validation rows, one by one, without a line of ours."""
    model = AutoModelForCausalLM.from_pretrained(export).eval()
    total, tokens = 0.0, 0
    for example in components.encode_data(settings(*given)).examples["validation"]:
        ids, labels = torch.tensor([example.ids]), torch.tensor([example.target])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        total += float(functional.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORE, reduction="sum"))
        tokens += int((labels[0, 1:] != IGNORE).sum())
    return total / tokens


@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_and_its_validation_loss_is_the_plain_one(method: str, tmp_path: Path) -> None:
    given = small(tmp_path, method, *METHODS[method], "max_epochs=3")

    fine_tune(settings(*given), tmp_path / "run")

    # Then the best validation of the run is what plain transformers computes from the export
    folder = RunDirectory(tmp_path / "run")
    curve = [row["val/loss"] for row in folder.read_curves() if "val/loss" in row]
    plain = by_plain_transformers(folder.export, given)
    assert min(curve) == pytest.approx(plain, rel=1e-4)
    assert folder.read_scores()["val/loss"] == pytest.approx(plain, rel=1e-4)
    assert min(curve) < curve[0] - 0.1


def test_labels_and_numbers_are_validated_without_smoothing_and_noise(tmp_path: Path) -> None:
    noise = "rdrop,neftune,stochastic_depth,ema"
    tasks = {
        "classification": ("data.label=label", f"regularization=[label_smoothing,{noise}]"),
        "regression": ("data.target=number", f"regularization=[{noise}]"),
    }
    for name, (column, methods) in tasks.items():
        given = [
            f"data={name}", f"data.train={labelled(tmp_path)}", "data.text=text", column, *MODEL, *QUIET, methods,
            "regularization.ema=0.8", "batch_size=8", "max_epochs=2", "lr=3e-3", "monitor=val/loss",
        ]  # fmt: skip
        fine_tune(settings(*given), tmp_path / name)

        folder = RunDirectory(tmp_path / name)
        model = AutoModelForSequenceClassification.from_pretrained(folder.export).eval()
        losses = []
        for example in components.encode_data(settings(*given)).examples["validation"]:
            with torch.no_grad():
                logits: Tensor = model(input_ids=torch.tensor([example.ids])).logits
            if name == "classification":
                losses.append(float(functional.cross_entropy(logits, torch.tensor([example.target]))))
            else:  # a head without bias keeps the standardised scale that the loss is over
                losses.append(float((logits - torch.tensor([example.target])).square()))
        best = min(row["val/loss"] for row in folder.read_curves() if "val/loss" in row)
        assert best == pytest.approx(sum(losses) / len(losses), rel=1e-3), name


def test_l1_leaves_exact_zeros_and_logs_their_share(tmp_path: Path) -> None:
    fine_tune(
        settings(*small(tmp_path, "l1", "regularization.l1=0.3", "trainer.log_every_n_steps=1")), tmp_path / "run"
    )

    folder = RunDirectory(tmp_path / "run")
    weights = read_checkpoint(folder.last)["state_dict"]
    matrices = [weight for weight in weights.values() if weight.ndim == 2]
    share = sum(int((weight == 0).sum()) for weight in matrices) / sum(weight.numel() for weight in matrices)
    logged = [row["train/sparsity"] for row in folder.read_curves() if "train/sparsity" in row]
    assert share > 0.2 and logged[-1] == pytest.approx(share, abs=1e-6)


def test_what_is_not_random_does_not_depend_on_how_a_step_is_cut(tmp_path: Path) -> None:
    given = small(tmp_path, "[l2,l1,label_smoothing,max_norm,ema]", "optimizer=sgd", "lr=0.5", "max_epochs=2")
    for name, tokens in (("whole", 4096), ("cut", 40)):
        fine_tune(settings(*given, f"micro_tokens={tokens}", "save=false"), tmp_path / name)

    one, two = (
        read_checkpoint(tmp_path / name / "checkpoints" / "best.ckpt")["state_dict"] for name in ("whole", "cut")
    )
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, rtol=1e-4, atol=1e-5)


def test_an_adapter_is_all_that_is_touched(tmp_path: Path) -> None:
    methods = "[l1,max_norm,mixout,neftune,stochastic_depth,ema]"
    given = small(tmp_path, methods, "adapter=lora", "regularization.max_norm=0.5", "regularization.ema=0.8")
    fine_tune(settings(*given), tmp_path / "run")

    folder = RunDirectory(tmp_path / "run")
    last, best = read_checkpoint(folder.last), read_checkpoint(folder.best)
    averaged = last["regularizer"]["averages"][0]["values"]
    assert averaged and all("lora" in name for name in averaged)
    assert {name for name in best["state_dict"] if "loss" not in name} == {f"model.{name}" for name in averaged}
    rows = [weight.norm(dim=1).max() for name, weight in last["state_dict"].items() if "lora" in name]
    assert max(rows) <= 0.5 + 1e-5
    assert folder.read_scores()["val/loss"] == pytest.approx(by_plain_transformers(folder.export, given), rel=1e-3)


def test_rows_stay_bounded_in_the_average_that_schedule_free_exports(tmp_path: Path) -> None:
    more = ["optimizer=schedule_free_adamw", "regularization.max_norm=0.3", "lr=0.05"]
    fine_tune(settings(*small(tmp_path, "none", *more)), tmp_path / "run")

    layers = list(trainable_linear_weights(AutoModelForCausalLM.from_pretrained(RunDirectory(tmp_path / "run").export)))
    longest = [float(layer.weight.detach().norm(dim=1).max()) for layer in layers]
    assert max(longest) <= 0.3 * (1 + 1e-5)
    assert max(longest) > 0.25


def test_zeros_of_l1_stay_zeros_in_the_average_that_schedule_free_exports(tmp_path: Path) -> None:
    more = ["optimizer=schedule_free_adamw", "regularization.l1=0.5", "lr=0.02"]
    fine_tune(settings(*small(tmp_path, "none", *more)), tmp_path / "run")

    folder = RunDirectory(tmp_path / "run")
    layers = list(trainable_linear_weights(AutoModelForCausalLM.from_pretrained(folder.export)))
    shares = [float((layer.weight == 0).float().mean()) for layer in layers]
    assert min(shares) > 0.05, shares
    assert folder.read_curves()[-1].get("train/sparsity", 1) > 0


def test_an_average_that_was_asked_for_is_exported_in_place_of_the_optimizers_own(tmp_path: Path) -> None:
    more = ["optimizer=schedule_free_adamw", "regularization.ema=0.5", "lr=0.02"]
    fine_tune(settings(*small(tmp_path, "none", *more)), tmp_path / "run")

    folder = RunDirectory(tmp_path / "run")
    last, best = read_checkpoint(folder.last), read_checkpoint(folder.best)
    averaged = last["regularizer"]["averages"][0]["values"]
    if folder.read_manifest()["best"]["step"] == last["global_step"]:
        assert all(torch.equal(best["state_dict"][f"model.{name}"], value) for name, value in averaged.items())
    assert any(not torch.equal(last["state_dict"][f"model.{name}"], value) for name, value in averaged.items())


@pytest.mark.slow  # three interpreters import everything
def test_two_processes_take_the_same_steps_as_one(tmp_path: Path) -> None:
    for devices in (1, 2):
        done = run([sys.executable, __file__, str(devices), str(tmp_path)], capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-2000:]

    one, two = (read_checkpoint(tmp_path / f"{n}" / "checkpoints" / "best.ckpt")["state_dict"] for n in (1, 2))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if not name.startswith("[")])
def test_the_built_in_model_learns_under_each_method(method: str, tmp_path: Path) -> None:
    given = [*QUIET, f"regularization={method}", "data.limit=300", "max_epochs=2", "eval.generate=false", "save=false"]
    fine_tune(settings(*given, "eval.base=true", "eval.test_rows=20"), tmp_path / "run")

    scores = RunDirectory(tmp_path / "run").read_scores()
    assert scores["test/loss"] < 0.25 * scores["base/loss"]


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    place = Path(sys.argv[2])
    own = [f"trainer.devices={sys.argv[1]}", "trainer.accelerator=cpu", "optimizer=sgd", "lr=0.5", "max_epochs=2"]
    methods = "[l2,l1,label_smoothing,max_norm,ema]"
    fine_tune(settings(*small(place, methods, *own, "save=false")), place / sys.argv[1])
