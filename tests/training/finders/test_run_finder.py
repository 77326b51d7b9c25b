"""The finders on a real run: against the same thing written out by hand, and nothing left behind."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.tiny_runs import MODEL, QUIET, instructions, settings
from tunelab.config.schema import RunConfig
from tunelab.errors import ConfigError
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.training.components import RunComponents, build_components, build_datamodule, build_module
from tunelab.training.finders import micro_tokens_finder
from tunelab.training.finders.base import FinderResult
from tunelab.training.finders.batch_size_finder import (
    NoiseMeasurement,
    NoiseScale,
    batch_size_result,
    find_batch_size,
    measure_noise_scale,
)
from tunelab.training.finders.lr_finder import find_lr, geometric_rates, run_range_test
from tunelab.training.finders.micro_tokens_finder import find_micro_tokens, measure_attempt, padded_tokens
from tunelab.training.finders.run_finder import finder_page, run_finder
from tunelab.training.trial_steps import run_trial_steps

PLAIN = [
    "optimizer=sgd",
    "optimizer.momentum=0",
    "optimizer.nesterov=false",
    "regularization=none",
    "trainer.gradient_clip_val=0",
]


def wanted(folder: Path, *overrides: str) -> RunConfig:
    """Settings of a small run."""
    file = instructions(folder, 40)
    base = ["data=instruction", f"data.train={file}", "data.split.validation=0.2", "batch_size=8", "lr=3e-3"]
    return settings(*base, *MODEL, *QUIET, *overrides)


def generators() -> list[Any]:
    """Where random numbers stand."""
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[union-attr]


def trained(prepared: RunComponents) -> dict[str, torch.Tensor]:
    """Weights after three steps of the run itself."""
    run_trial_steps(prepared, build_module(prepared, prepared.model), 3, [])
    return {name: weight.detach().clone() for name, weight in prepared.model.named_parameters()}


@pytest.mark.parametrize("finder", [lambda run: find_lr(run, steps=12), find_micro_tokens, find_batch_size])
def test_training_after_a_finder_is_bit_equal_to_training_without_it(
    finder: Callable[[RunComponents], FinderResult], tmp_path: Path
) -> None:
    # Given a run with dropout, which the generators decide
    run = wanted(tmp_path, "regularization=dropout")
    prepared = build_components(run)
    before = {name: tensor.clone() for name, tensor in prepared.model.state_dict().items()}
    numbers = generators()

    # When a finder has looked
    assert finder(prepared).value is not None or finder is not find_micro_tokens

    # Then weights and generators are as they were, and what is trained next is what would have been
    assert all(torch.equal(before[name], tensor) for name, tensor in prepared.model.state_dict().items())
    assert generators() == numbers
    assert all(weight.grad is None for weight in prepared.model.parameters())
    after = trained(prepared)
    fresh = trained(build_components(run))
    assert all(torch.equal(after[name], fresh[name]) for name in fresh)


def test_losses_of_the_range_test_are_those_of_plain_sgd_written_out(tmp_path: Path) -> None:
    # Given twelve rates
    prepared = build_components(wanted(tmp_path, *PLAIN))
    rates = geometric_rates(3e-3, 1, 12)

    # When they are tried, and when SGD is written out over the same rows
    found = run_range_test(prepared, steps=12, decades=1)
    losses, loader, model = [], build_datamodule(prepared).loader("train"), prepared.model
    loss_of = build_module(prepared, model).training_loss
    while len(losses) < 12:
        loader.set_epoch(len(losses) // len(loader))
        for step in loader:
            loss = sum(loss_of(micro)[1] for micro in step.micro_batches) / step.loss_weight  # type: ignore[misc]
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(model.parameters(), gradients, strict=True):
                    weight.sub_(rates[len(losses)] * gradient)
            losses.append(float(loss.detach()))

    # Then both see the same losses
    assert found.rates == rates
    assert found.losses == pytest.approx(losses[:12], rel=1e-5)


def test_a_rate_that_breaks_the_model_is_told_as_where_it_diverged(tmp_path: Path) -> None:
    prepared = build_components(wanted(tmp_path, *PLAIN, "lr=10"))

    found = run_range_test(prepared, steps=40, decades=3)

    assert found.diverged is not None and len(found.losses) < 40
    assert found.rates[-1] / found.diverged < 2  # one step later at most


def test_the_noise_scale_is_that_of_gradients_one_by_one(tmp_path: Path) -> None:
    # Given the gradients of pieces of four rows, each a vector
    prepared = build_components(wanted(tmp_path, *PLAIN, "micro_tokens=40"))
    loader, model = build_datamodule(prepared).loader("train"), prepared.model
    module = build_module(prepared, model)
    seen: list[list[int]] = []
    collate = loader.collate

    def watched(examples: Any) -> Any:
        seen.append([example.row for example in examples])
        return collate(examples)

    loader.collate = watched

    # When the scale is measured
    found = measure_noise_scale(prepared, module, loader)

    # Then it is what their sample covariance gives
    rows = [row for micro in seen for row in micro]
    assert len(rows) == len(set(rows)) == found.sequences == len(loader.examples) // 4 * 4  # whole pieces
    place = {example.row: index for index, example in enumerate(loader.examples)}
    vectors, units = [], []
    for start in range(0, len(rows), 4):
        mine = [place[row] for row in rows[start : start + 4]]
        loss = module.training_loss(micro_to_device(collate([loader.examples[i] for i in mine]), model.device))[1]
        parts = torch.autograd.grad(loss, list(model.parameters()))
        vectors.append(torch.cat([part.flatten() for part in parts]).double())
        units.append(sum(loader.loss_weights[i] for i in mine))
    gradients, weights = torch.stack(vectors), torch.tensor(units, dtype=torch.double)
    mean = gradients.sum(0) / weights.sum()
    rest = gradients - weights[:, None] * mean
    count = len(units)
    variance = float(rest.square().sum() / weights.sum() ** 2) * count / (count - 1)
    assert found.noise == pytest.approx(variance * len(rows), rel=1e-3)
    assert found.signal == pytest.approx(float(mean.square().sum()) - variance, rel=1e-3)


@pytest.mark.parametrize("bound", [50, 100, 1000])
def test_the_largest_pass_below_a_bound_is_found_where_more_runs_out_of_memory(bound: int, tmp_path: Path) -> None:
    # Given a device whose memory ends at so many positions
    prepared = build_components(wanted(tmp_path))
    loader = build_datamodule(prepared).loader("train")
    rows = sorted(range(len(loader.examples)), key=lambda row: -loader.lengths[row])
    sizes = [padded_tokens(loader, rows[:count]) for count in range(1, 9)]

    def refuse(module: Any, args: Any, kwargs: Any) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        if ids.numel() > bound:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = prepared.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: refuse(module, args, {})
    )

    # When the largest is looked for
    try:
        found = find_micro_tokens(prepared)
    finally:
        handle.remove()

    # Then it is the largest there is
    assert found.value == max(size for size in sizes if size <= bound)


def test_a_row_that_does_not_fit_by_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = build_components(wanted(tmp_path))
    monkeypatch.setattr(micro_tokens_finder, "free_bytes", lambda device: 1000)

    with pytest.raises(ConfigError, match=r"the longest row alone .* does not fit"):
        find_micro_tokens(prepared)


@pytest.mark.slow
def test_the_largest_pass_is_that_of_trying_every_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the memory of every size, and room for the third
    prepared = build_components(wanted(tmp_path, "batch_size=4"))
    loader, module = build_datamodule(prepared).loader("train"), build_module(prepared, prepared.model)
    module.schedule = lambda step: 0.0
    rows = sorted(range(len(loader.examples)), key=lambda row: (-loader.lengths[row], row))
    sizes = [padded_tokens(loader, rows[:count]) for count in range(1, 5)]
    taken = [
        measure_attempt(prepared, module, loader, rows[:count], sizes[count - 1], torch.device("cpu"))
        for count in range(1, 5)
    ]
    room = taken[2] or 0
    monkeypatch.setattr(micro_tokens_finder, "free_bytes", lambda device: int(room / 0.9 * 1.002))

    # When the largest is looked for, then it is the last that takes no more
    found = find_micro_tokens(prepared)
    assert found.value == max(size for size, each in zip(sizes, taken, strict=True) if each and each <= room * 1.002)


def test_a_finder_leaves_its_two_files_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a folder to work in, and one for what is temporary
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir(), temporary.mkdir()
    run = wanted(tmp_path, "find=batch_size")
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    # When a finder has run
    run_finder(run, work / "found")

    # Then there is its result, and nothing else
    assert sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()) == [
        "found/find.html",
        "found/find.json",
    ]
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(("batch_size", "others"), [(32, 0), (8, 1)])
def test_the_progress_of_the_suggestion_is_told_where_it_is_another_size(batch_size: int, others: int) -> None:
    looks = [NoiseMeasurement(50, NoiseScale(256, 40.0, 1.0))]

    said = " ".join(batch_size_result(looks, batch_size, 1000).reasons)

    assert said.count("one over 32 44%") == others
    assert "beyond 32, twice the sequences" in said


def test_a_page_leaves_the_name_of_a_setting_as_it_is_typed() -> None:
    page = finder_page(FinderResult("lr", 0.1, ["two rates were tried", "lr is 0.2 now"], {}, []))

    assert "Two rates were tried." in page and "lr is 0.2 now." in page


def test_a_finder_is_refused_where_a_run_goes_on_or_is_a_trial() -> None:
    with pytest.raises(ConfigError, match="cannot go with resume"):
        settings("find=lr", "resume=somewhere")
    with pytest.raises(ConfigError, match="nothing that a search could compare"):
        settings("find=lr", "trial.id=3", "trial.study=somewhere")
    with pytest.raises(ConfigError, match="did you mean 'micro_tokens'"):
        settings("find=microtokens")
