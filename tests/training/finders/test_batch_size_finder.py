"""The gradient noise scale against closed forms: quadratics whose noise is known."""

import math

import pytest
import torch
from torch import Tensor

from tunelab.training.finders.batch_size_finder import GradientPieces, NoiseScale

SPREAD = torch.linspace(0.5, 2, 20)  # standard deviation of each coordinate of a row
PLACE = torch.linspace(-1, 1, 20)  # where the weights stand; rows scatter around 0
CURVATURE = 3.0
NOISE = float((CURVATURE * SPREAD).square().sum())
SIGNAL = float((CURVATURE * PLACE).square().sum())


def gradients(rows: int, seed: int) -> Tensor:
    """Of the losses CURVATURE / 2 |weights - row|^2, (rows, 20): mean CURVATURE * PLACE, known covariance."""
    noise = torch.randn(rows, 20, generator=torch.Generator().manual_seed(seed))
    return CURVATURE * (PLACE - SPREAD * noise)


def estimate(found: Tensor, size: int, units: Tensor | None = None) -> NoiseScale:
    """The estimate from pieces of `size` rows, each row's loss weighed by its units."""
    weights = torch.ones(len(found)) if units is None else units
    pieces = GradientPieces()
    for start in range(0, len(found), size):
        mine = slice(start, start + size)
        weighed = (found[mine] * weights[mine, None]).sum(0)
        pieces.add([weighed[:5], weighed[5:]], units=float(weights[mine].sum()), sequences=size)
    return pieces.estimate


@pytest.mark.parametrize("size", [1, 4, 16])
def test_noise_and_signal_of_a_quadratic_are_found_whatever_the_size_of_a_piece(size: int) -> None:
    found = estimate(gradients(8192, seed=0), size)

    assert found.sequences == 8192
    assert found.noise == pytest.approx(NOISE, rel=0.1)
    assert found.signal == pytest.approx(SIGNAL, rel=0.1)
    assert found.scale == pytest.approx(NOISE / SIGNAL, rel=0.15)


def test_rows_that_weigh_differently_make_more_noise_by_the_spread_of_their_weights() -> None:
    # Given a mean over tokens of rows with 1 to 5 tokens each
    units = torch.randint(1, 6, (16384,), generator=torch.Generator().manual_seed(1)).float()

    # When the noise is measured
    found = estimate(gradients(16384, seed=2), 2, units)

    # Then it is that of one row times the mean of squares over the square of the mean
    wanted = NOISE * float(units.square().mean() / units.mean() ** 2)
    assert wanted > 1.2 * NOISE
    assert found.noise == pytest.approx(wanted, rel=0.05)


def test_the_signal_is_not_raised_by_the_noise_of_few_rows() -> None:
    rounds = [gradients(8, seed=seed) for seed in range(400)]

    mean = sum(estimate(found, 1).signal for found in rounds) / len(rounds)
    naive = sum(float(found.mean(0).square().sum()) for found in rounds) / len(rounds)

    assert mean == pytest.approx(SIGNAL, rel=0.05)
    assert naive > SIGNAL + 0.8 * NOISE / 8


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_progress_is_what_the_best_step_along_a_noisy_gradient_gains(batch_size: int) -> None:
    # Given the known sizes, and the best step for a batch of that size (equation 2.7 of the paper)
    exact = NoiseScale(0, NOISE, SIGNAL)
    rate = 1 / CURVATURE / (1 + exact.scale / batch_size)

    # When it is taken from many batches
    noise = torch.randn(20000, 20, generator=torch.Generator().manual_seed(3)) / math.sqrt(batch_size)
    after = PLACE - rate * CURVATURE * (PLACE - SPREAD * noise)
    gained = (PLACE.square().sum() - after.square().sum(1).mean()) / PLACE.square().sum()

    # Then the mean gain is that share of what the gradient itself would gain, which is all
    assert float(gained) == pytest.approx(exact.progress(batch_size), rel=0.03)


def test_a_gradient_that_noise_hides_has_no_finite_scale() -> None:
    found = NoiseScale(64, 1.0, -0.01)

    assert found.scale == math.inf and found.progress(64) == 0
