"""A small loss with a minimum, for tests of what optimizers do to it."""

import torch
from torch import Tensor
from torch.nn import Parameter

DECAY, RATE = 0.1, 0.01


def weights() -> list[Parameter]:
    """Two matrices and a vector."""
    draw = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=draw)) for shape in ((6, 4), (4, 3), (3,))]


def loss_of(parameters: list[Parameter], step: int) -> Tensor:
    """A smooth loss with rows of its own at each step."""
    rows = torch.randn(8, 6, generator=torch.Generator().manual_seed(step)).to(parameters[0].dtype)
    return (torch.tanh(rows @ parameters[0]) @ parameters[1] + parameters[2] - rows[:, :3]).square().mean()
