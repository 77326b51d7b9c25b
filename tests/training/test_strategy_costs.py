"""What each strategy costs a device, by counting."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.paths import ROOT
from support.tiny_runs import settings
from support.uneven_rows import tiny_model
from tunelab.config.schema import FsdpConfig
from tunelab.training.memory_profile import PassMemory, TrainingMemory
from tunelab.training.strategy_costs import (
    StepWork,
    Units,
    ddp_memory,
    ddp_traffic,
    fsdp_memory,
    fsdp_traffic,
    split_cost,
    strategy_costs,
)

MEMORY = TrainingMemory(
    weights=800,
    gradients=800,
    optimizer_state=1600,
    averages=0,
    passes=PassMemory(1000, None, 1.0, 700),
    step_buffers=0,
)
UNITS = Units(every=1000, outside=200, outside_learned=150, layer=100, layer_learned=90)


def test_a_ring_over_two_devices_sends_every_gradient_once() -> None:
    assert ddp_traffic(1000, 2) == 1000 and ddp_traffic(1000, 4) == 1500


def test_fsdp_gathers_layers_twice_and_shares_gradients_out_once_in_each_pass() -> None:
    # 1000 bytes of weights, 200 of them in no layer
    assert fsdp_traffic(UNITS, gradients=1000, devices=2, passes=1, config=FsdpConfig()) == (200 + 2 * 800 + 1000) / 2
    assert fsdp_traffic(UNITS, gradients=10, devices=2, passes=4, config=FsdpConfig()) == 4 * (1800 + 10) / 2
    kept = FsdpConfig(reshard_after_forward=False, gather_dtype="bfloat16")
    assert fsdp_traffic(UNITS, gradients=1000, devices=2, passes=1, config=kept) == (1000 / 2 + 1000) / 2


def test_the_more_devices_the_less_fsdp_keeps_on_each() -> None:
    eight, two = (fsdp_memory(MEMORY, UNITS, devices, FsdpConfig()) for devices in (8, 2))

    gathered = 200 + 150 + 2 * 100 + 90
    assert two == 2400 / 2 + 700 + gathered and eight == 2400 / 8 + 700 + gathered
    assert ddp_memory(MEMORY) == MEMORY.peak + 800


def test_gradients_of_earlier_passes_and_layers_that_stay_gathered_are_counted() -> None:
    later = replace(MEMORY, passes=PassMemory(1000, 1450, 1.0, 700))  # 650 of its own, less than the first

    assert fsdp_memory(later, UNITS, 2, FsdpConfig()) == fsdp_memory(MEMORY, UNITS, 2, FsdpConfig()) - 700 + 650 + 400
    kept = fsdp_memory(MEMORY, UNITS, 2, FsdpConfig(reshard_after_forward=False))
    assert kept == 1200 + 700 + 200 + 150 + 800 + 90


def test_what_is_offloaded_counts_on_no_gpu_and_on_every_cpu() -> None:
    offloaded = FsdpConfig(cpu_offload=True)

    assert fsdp_memory(MEMORY, UNITS, 2, offloaded) == 700 + 640
    assert fsdp_memory(MEMORY, UNITS, 2, offloaded, on_cpu=True) == fsdp_memory(MEMORY, UNITS, 2, FsdpConfig())


def test_the_largest_layer_and_what_is_in_none_are_units_and_frozen_weights_have_no_gradient() -> None:
    model = tiny_model()
    layers = [sum(p.nbytes for p in layer.parameters()) for layer in model.model.layers]
    model.lm_head.requires_grad_(False)

    units = Units.of(model)

    assert units.every == sum(p.nbytes for p in model.parameters()) and units.layer == units.layer_learned == layers[0]
    assert units.outside == units.every - sum(layers)
    assert units.outside_learned == units.outside - model.lm_head.weight.nbytes


@pytest.mark.parametrize(
    ("words", "devices"), [([], {2, 8}), (["trainer=ddp_cpu", "trainer.devices=3", "trainer.num_nodes=2"], {6})]
)
def test_costs_are_those_of_the_devices_of_the_run(words: list[str], devices: set[int]) -> None:
    costs = strategy_costs(tiny_model(), settings(*words).trainer, MEMORY, StepWork(4))

    assert {cost.devices for cost in costs} == devices
    assert {cost.strategy for cost in costs} == {"ddp", "fsdp", "fsdp trainer.fsdp.tensor_parallel=2"}


def test_layers_that_four_devices_split_in_pairs_take_half_as_much_of_a_pass_and_send_sums() -> None:
    # Given a model all but 160 of whose numbers are split, and a step of one pass over 10 positions, 4 of them learned
    model = tiny_model()
    total = sum(weight.numel() for weight in model.parameters())
    share = ((total - 160) / 2 + 160) / total
    cost = split_cost(
        model, MEMORY, StepWork(passes=1, positions=10, learned=4), devices=4, width=2, config=FsdpConfig()
    )

    # Then weights, gradients and state are spread over two, activations lose what is split, and each sum is sent once
    units = Units.of(model)
    whole = 3200 * share / 2 + units.in_backward(FsdpConfig()) * share
    assert cost.memory == pytest.approx(whole + 700 / 2, abs=1)
    sums = (10 * 4 * 32 * (2 * 4 + 1) + 4 * 4 * (32 + 50 / 2)) / 2
    assert cost.traffic == pytest.approx(fsdp_traffic(units, 800, 2, 1, FsdpConfig(), share, share) + sums, abs=1)
    assert cost.memory < fsdp_memory(MEMORY, units, 4, FsdpConfig())


def test_a_model_that_cannot_be_split_has_no_such_cost() -> None:
    costs = strategy_costs(tiny_model(), settings("trainer=fsdp_cpu", "trainer.devices=3").trainer, MEMORY, StepWork(4))

    assert {cost.strategy for cost in costs} == {"ddp", "fsdp"}, "three devices do not form pairs"


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux says how much a process took at most"
)
def test_what_is_foretold_is_what_two_processes_take() -> None:
    # Given three steps of a small model on two processes that share it, with activations kept or computed again
    cases = ["fsdp", "fsdp, checkpointing"]
    command = [sys.executable, str(ROOT / "bench" / "strategies" / "run.py"), "--only", "memory", "--case", *cases]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    # Then the most that a process took is foretold
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| fsdp")]
    assert [row[0] for row in rows] == cases
    for _, taken, foretold, _ in rows:
        assert float(foretold) == pytest.approx(float(taken), rel=0.2)
