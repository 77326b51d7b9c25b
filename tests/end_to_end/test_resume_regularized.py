"""A run with an average or with noise that was stopped and resumed ends exactly as one that was not."""

import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.resumed_runs import Watch, overrides, stopped_and_resumed, whole
from support.tiny_models import SIZE, saved
from support.tiny_runs import CONF
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory

CASES: dict[str, tuple[list[str], list[Watch]]] = {
    "moving average": (["regularization.ema=0.9"], [Watch(4)]),
    "moving average while it validates": (["regularization.ema=0.9"], [Watch(3, validating=True)]),
    "moving average of an adapter": (["adapter=lora", "regularization.ema=0.9", "regularization.l1=0.01"], [Watch(5)]),
    "mean before it begins": (["regularization.swa_start=0.5"], [Watch(4)]),
    "mean after it began": (["regularization.swa_start=0.3"], [Watch(7, signal.SIGINT)]),
    "noise": (
        ["regularization.rdrop=1", "regularization.neftune=5", "regularization.stochastic_depth=0.3"],
        [Watch(4)],
    ),
    "mixout": (["regularization.mixout=0.5", "regularization.max_norm=1"], [Watch(1), Watch(8)]),
    "zeros beneath a line search": (["optimizer=lbfgs", "regularization.l1=0.01"], [Watch(3)]),
    "zeros and bounds in an average, and another average": (
        [
            "optimizer=schedule_free_adamw",
            "regularization.max_norm=1",
            "regularization.l1=0.01",
            "regularization.swa_start=0.5",
        ],
        [Watch(3), Watch(8)],
    ),
}  # fmt: skip
FILES = {f"regularization={path.stem}" for path in (CONF / "regularization").glob("*.yaml")}


FEW = ("moving average of an adapter", "noise", "mixout")  # the others take the slow suite


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in FEW), id=name.replace(" ", "-")) for name in CASES],
)
def test_a_resumed_run_ends_bit_equal(case: str, tmp_path: Path) -> None:
    ends_bit_equal(*CASES[case], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(FILES))
def test_each_method_by_its_name_resumes_bit_equal(file: str, tmp_path: Path) -> None:
    ends_bit_equal([file], [Watch(2), Watch(7)], tmp_path)


def ends_bit_equal(more: list[str], stops: list[Watch], tmp_path: Path) -> None:
    """Run twice, once stopped and resumed, and compare all that is left."""
    base = saved("llama", tmp_path, AutoModelForCausalLM, SIZE)
    given = [part for part in overrides(tmp_path) if not part.startswith("model")]
    given += ["model=pretrained", f"model.path={base}", *more]

    watch, one = whole(tmp_path, given)
    seen, other = stopped_and_resumed(tmp_path, given, stops)

    assert seen == watch.seen
    for name in ("last.ckpt", "best.ckpt"):
        left, right = (read_checkpoint(folder / "checkpoints" / name) for folder in (one, other))
        assert left["state_dict"].keys() == right["state_dict"].keys()
        assert all(torch.equal(left["state_dict"][key], right["state_dict"][key]) for key in left["state_dict"]), name
        for before, after in zip(*(found.get("regularizer", {}).get("averages", []) for found in (left, right))):  # noqa: B905
            assert before["counted"] == after["counted"] > 0
            assert all(torch.equal(value, after["values"][key]) for key, value in before["values"].items())
    assert RunDirectory(one).read_scores() == RunDirectory(other).read_scores()
