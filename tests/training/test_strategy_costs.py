"""What each strategy costs a device, by counting."""

import pytest

from support.tiny_runs import settings
from support.uneven_rows import tiny_model
from tunelab.training.memory_profile import PassMemory, TrainingMemory
from tunelab.training.strategy_costs import (
    StepWork,
    ddp_memory,
    ddp_traffic,
    fsdp_memory,
    fsdp_traffic,
    largest_unit,
    split_cost,
    strategy_costs,
)

MEMORY = TrainingMemory(
    weights=800, gradients=800, optimizer_state=1600, averages=0, passes=PassMemory(1000, None, 1.0), step_buffers=0
)


def test_a_ring_over_two_devices_sends_every_gradient_once() -> None:
    assert ddp_traffic(1000, 2) == 1000 and ddp_traffic(1000, 4) == 1500


def test_fsdp_gathers_twice_and_shares_out_once_in_each_pass() -> None:
    assert fsdp_traffic(weights=1000, gradients=1000, devices=2, passes=1) == 1500
    assert fsdp_traffic(weights=1000, gradients=10, devices=2, passes=4) == 4020  # an adapter: few gradients


def test_the_more_devices_the_less_fsdp_keeps_on_each() -> None:
    eight, two = (fsdp_memory(MEMORY, 100, devices) for devices in (8, 2))

    assert two == 3200 / 2 + 300 + 200 and eight == 3200 / 8 + 300 + 200
    assert ddp_memory(MEMORY) == MEMORY.peak + 800


def test_the_largest_unit_of_a_model_with_a_large_vocabulary_is_its_embeddings() -> None:
    model = tiny_model()
    layers = [sum(p.nbytes for p in layer.parameters()) for layer in model.model.layers]

    assert largest_unit(model) == max(*layers, sum(p.nbytes for p in model.parameters()) - sum(layers))


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
    cost = split_cost(model, MEMORY, StepWork(passes=1, positions=10, learned=4), devices=4, width=2)

    # Then weights, gradients and state are spread over two, activations lose what is split, and each sum is sent once
    assert cost.memory == pytest.approx(3200 * share / 2 + 3 * largest_unit(model) * share + 200 / 2, abs=1)
    sums = (10 * 4 * 32 * (2 * 4 + 1) + 4 * 4 * (32 + 50 / 2)) / 2
    assert cost.traffic == pytest.approx(fsdp_traffic(round(800 * share), round(800 * share), 2, 1) + sums, abs=1)
    assert cost.memory < fsdp_memory(MEMORY, largest_unit(model), 4)


def test_a_model_that_cannot_be_split_has_no_such_cost() -> None:
    costs = strategy_costs(tiny_model(), settings("trainer=fsdp_cpu", "trainer.devices=3").trainer, MEMORY, StepWork(4))

    assert {cost.strategy for cost in costs} == {"ddp", "fsdp"}, "three devices do not form pairs"
