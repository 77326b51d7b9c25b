"""The range test against closed forms: gradient descent on a quadratic, and a curve with a known steepest place."""

import math

import pytest
import torch

from tunelab.training.finders.lr_finder import DivergenceWatch, RangeTest, finish_range_test, geometric_rates

CURVATURE = 4.0


def descend(rates: list[float]) -> RangeTest:
    """SGD on CURVATURE / 2 x^2 from x = 1."""
    x, watch, losses = torch.nn.Parameter(torch.ones((), dtype=torch.double)), DivergenceWatch(), list[float]()
    optimizer = torch.optim.SGD([x])
    left = False
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = CURVATURE / 2 * x**2
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
        if left := watch.has_diverged(losses[-1]):
            break
    return finish_range_test(rates, losses, left=left)


def test_a_quadratic_is_said_to_diverge_soon_after_the_rate_at_which_it_must() -> None:
    # Given that gradient descent grows above 2 / curvature
    rates = geometric_rates(0.01, 3, 121)

    # When rates rise
    found = descend(rates)

    # Then losses follow the closed form, and the end is reported a few steps beyond that rate, never before
    shrink = [math.prod((1 - CURVATURE * rate) ** 2 for rate in rates[:place]) for place in range(len(found.losses))]
    assert found.losses == pytest.approx([CURVATURE / 2 * each for each in shrink], rel=1e-9)
    assert found.diverged is not None
    assert 2 / CURVATURE < found.diverged < 10 * 2 / CURVATURE
    assert rates[found.lowest] == pytest.approx(2 / CURVATURE, rel=0.2)  # where shrinking turns into growing
    assert found.suggestion is not None and found.suggestion < found.diverged


@pytest.mark.parametrize("steepest", [1e-5, 1e-4, 1e-3])
def test_the_suggestion_lies_between_the_known_ends_of_a_known_curve(steepest: float) -> None:
    # Given a loss whose logarithm falls along a logistic curve of that of the rate, and rises from 0.05 on
    rates = geometric_rates(1e-3, 3, 241)
    fall = [-3 / (1 + math.exp(-2 * math.log(rate / steepest))) for rate in rates]
    losses = [math.exp(part) + max(0.0, math.log(rate / 0.05)) for part, rate in zip(fall, rates, strict=True)]

    # When it is read
    found = finish_range_test(rates, losses, left=False)

    # Then the fall is fastest at its point of inflection, the end is seen, and half-way between them is suggested
    assert found.fastest is not None
    assert rates[found.fastest] == pytest.approx(steepest, rel=0.2)
    assert rates[found.lowest] == pytest.approx(0.05, rel=0.4)
    assert found.suggestion == pytest.approx(math.sqrt(steepest * 0.05), rel=0.25)


def test_a_loss_that_does_not_fall_gets_no_suggestion() -> None:
    rates = geometric_rates(1e-3, 3, 60)

    assert finish_range_test(rates, [1 + 0.001 * (place % 3) for place in range(60)], left=False).suggestion is None
    assert finish_range_test(rates, [1 + 0.1 * place for place in range(60)], left=True).suggestion is None


def test_the_rate_that_is_blamed_is_that_of_the_step_before_the_loss() -> None:
    rates = [0.1, 0.2, 0.4, 0.8]

    assert finish_range_test(rates, [1, 1, 9], left=True).diverged == 0.2
    assert finish_range_test(rates, [1, 1, math.inf], left=True) == RangeTest([0.1, 0.2], [1, 1], 0.2)
    assert finish_range_test(rates, [1, 1, 1, 1], left=False).diverged is None


def test_noise_around_a_small_loss_is_no_divergence() -> None:
    # Given a loss that has come down from 2 to 0.02 and then jumps up to tenfold now and then
    watch = DivergenceWatch()
    falling = [2 * 0.9**step for step in range(44)]
    jumps = [0.2 if step % 10 == 0 else 0.02 for step in range(50)]

    # Then it has not left; back at where it began, it has
    assert not any(watch.has_diverged(loss) for loss in [*falling, *jumps])
    assert any([watch.has_diverged(2.0) for _ in range(10)])
    assert watch.has_diverged(math.nan)
