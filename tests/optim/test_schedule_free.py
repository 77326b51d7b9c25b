"""Schedule-free AdamW is the algorithm of its paper, at rates that change and where its points are moved."""

import copy

import torch
from torch.nn import Parameter

from support.small_loss import DECAY, RATE, loss_of, weights
from tunelab.optim.param_groups import weight_decay_groups
from tunelab.optim.schedule_free import ScheduleFreeAdamW

RATES = [RATE * share for share in (0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1)]  # one per step


def freely_trained(parameters: list[Parameter]) -> ScheduleFreeAdamW:
    """The optimizer after its steps, at rates that rise and fall."""
    optimizer = ScheduleFreeAdamW(weight_decay_groups(parameters, DECAY), RATE, (0.9, 0.999), 1e-8)
    for step, rate in enumerate(RATES):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss_of(parameters, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return optimizer


def test_schedule_free_is_the_algorithm_of_its_paper_in_three_sequences() -> None:
    beta, memory, eps = 0.9, 0.999, 1e-8
    start = weights()
    z, x = ([w.detach().clone() for w in start] for _ in range(2))
    square = [torch.zeros_like(w) for w in start]
    summed = 0.0
    for step, rate in enumerate(RATES, 1):
        y = [Parameter((1 - beta) * a + beta * b) for a, b in zip(z, x, strict=True)]
        gradients = torch.autograd.grad(loss_of(y, step - 1), y)
        weight = max(RATES[:step]) ** 2  # a step counts by the square of the highest rate so far
        summed += weight
        share = weight / summed
        for place, gradient in enumerate(gradients):
            square[place] = memory * square[place] + (1 - memory) * gradient**2
            size = (square[place] / (1 - memory**step)).sqrt() + eps
            decay = DECAY * y[place].detach() if y[place].ndim == 2 else 0
            z[place] = z[place] - rate * (gradient / size + decay)
            x[place] = (1 - share) * x[place] + share * z[place]
    parameters = weights()
    optimizer = freely_trained(parameters)
    kept = copy.deepcopy([weight.detach() for weight in parameters])
    optimizer.swap_in_averages()
    for shown, average in zip(parameters, x, strict=True):
        torch.testing.assert_close(shown.detach(), average, rtol=1e-4, atol=1e-5)
    optimizer.swap_in_trained()
    assert all(torch.equal(weight, before) for weight, before in zip(parameters, kept, strict=True))


def test_a_point_that_is_moved_after_a_step_of_schedule_free_moves_average_and_parameters_by_its_share() -> None:
    parameters = weights()
    optimizer = freely_trained(parameters)
    before = {weight: average.clone() for weight, average in optimizer.averages()}
    highest = [max(RATES[: step + 1]) ** 2 for step in range(len(RATES))]
    share = highest[-1] / sum(highest)
    for weight in parameters:
        z = optimizer.state[weight]["z"].clone()

        moved = optimizer.move_average(weight, lambda point: point * 0.5 - 1)

        torch.testing.assert_close(moved, z * 0.5 - 1)
        average = before[weight] + share * (moved - z)  # the last term of the average is the moved point
        found = dict(optimizer.averages())[weight]
        torch.testing.assert_close(found, average, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weight.detach(), 0.1 * moved + 0.9 * average, rtol=1e-4, atol=1e-5)
