"""The gradient, and every score, is the same whether documents share a row or not."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from support.tiny_models import DECODERS, decoder, saved
from support.tiny_runs import MODEL, QUIET, instructions, settings
from tunelab.data.examples import IGNORE, Example
from tunelab.data.loader import BatchLoader
from tunelab.errors import ConfigError
from tunelab.models.packing_support import enable_packing
from tunelab.runs.run_dir import RunDirectory
from tunelab.tasks.instruction import Instruction
from tunelab.training.run import fine_tune


def uneven(rows: int = 18) -> list[Example]:
    """Prompts and answers of uneven length, one row in nine without anything to learn."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for row in range(rows):
        length = int(torch.randint(3, 30, (), generator=draw))
        ids = torch.randint(3, 300, (length,), generator=draw).tolist()
        masked = length if row % 9 == 4 else int(torch.randint(1, length, (), generator=draw))
        labels = [IGNORE] * masked + ids[masked:]
        found.append(Example(ids, labels, sum(label != IGNORE for label in labels[1:]), row))
    return found


def gradients(family: str, packing: bool | str, attention: str = "auto") -> tuple[dict[str, Tensor], bool, int]:
    """The gradient of one step of 18 documents; whether they were laid packed; and in how many passes."""
    model = decoder(family, None if attention == "auto" else attention).double().eval()
    task = Instruction()
    task.packed = enable_packing(model, packing=packing, attention=attention, kernels=[], at_work=nullcontext)
    step = next(iter(BatchLoader(
        uneven(), collate=task.collate, filler=task.padding_example(), batch_size=18, micro_tokens=70,
        packed=task.packed,
    )))  # fmt: skip
    for micro in step.micro_batches:
        (task.loss_sum(task.logits(model, micro), micro) / step.loss_weight).backward()
    return (
        {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        task.packed,
        len(step.micro_batches),
    )


@pytest.mark.parametrize("family", DECODERS)
def test_the_gradient_does_not_depend_on_packing(family: str) -> None:
    padded, packed, passes = gradients(family, False)
    assert not packed

    for packing in (True, "auto"):
        found, packed, fewer = gradients(family, packing)

        assert packed == (packing is True or family != "gemma2")
        assert fewer < passes or not packed
        for name, gradient in padded.items():
            scale = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(found[name] / scale, gradient / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_gradient_does_not_depend_on_packing_with_an_attention_of_ones_own(attention: str) -> None:
    padded, *_ = gradients("llama", False, attention)

    found, packed, _ = gradients("llama", True, attention)

    assert packed
    for name, gradient in padded.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6 * max(1.0, float(gradient.abs().max())))


def trained(tmp_path: Path, packing: str, *more: str) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weights and scores after three steps."""
    given = [f"data.train={instructions(tmp_path, 40)}", "data=instruction", f"data.packing={packing}", "batch_size=8"]
    small = ["max_steps=3", "lr=1e-2", "micro_tokens=256", "data.split.validation=0.2", "data.split.test=0.2"]
    folder = tmp_path / packing
    fine_tune(settings(*given, *small, *(more or MODEL), *QUIET), folder)
    run = RunDirectory(folder)
    return load_file(run.export / "model.safetensors"), json.loads(run.metrics.read_text())


def test_a_run_learns_and_scores_the_same_packed_or_not(tmp_path: Path) -> None:
    padded, plain = trained(tmp_path, "false")

    for packing in ("true", "auto"):
        weights, scores = trained(tmp_path, packing)

        for name in ("val/loss", "val/token_accuracy", "test/loss", "test/token_accuracy"):
            assert scores[name] == pytest.approx(plain[name], rel=1e-5), name
        for name, weight in padded.items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-4)  # three steps of Adam at 1e-2


def test_a_run_that_demands_what_a_model_cannot_do_stops_before_training(tmp_path: Path) -> None:
    folder = saved("opt", tmp_path, AutoModelForCausalLM, DECODERS["opt"])

    with pytest.raises(ConfigError, match="data.packing=true: opt with model.attention=sdpa lets packed documents"):
        trained(tmp_path, "true", "model=pretrained", f"model.path={folder}", "model.attention=sdpa")

    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("wrong", ["data.packing=maybe", "model.attention=flash"])
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"{wrong} is unknown"):
        settings(wrong)
