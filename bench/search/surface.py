"""A made-up fine-tuning: learning curves over five settings, with a cliff, a ridge, over-fitting and seed noise.

Nothing here is measured.  The shape holds what makes real searches hard: the best rate grows with the root of the
batch size, rates a little above the best diverge unless warm-up is long, small decay and dropout over-fit late, and
two seeds of one configuration differ by about as much as two good configurations.
"""

import math
from random import Random

from made_up import lowest, sample_curve, true_value
from problem import Params, Problem

from tunelab.search.space import build_space

EPOCHS = 12  # validations of a whole run
NOISE = 0.01  # standard deviation of the final loss over seeds
SPACE = {
    "lr": "interval(1e-5,1e-1)",
    "batch": "tag(log,int(interval(4,256)))",
    "decay": "interval(1e-4,1.0)",
    "warmup": "interval(0.0,0.3)",
    "dropout": "interval(0.0,0.5)",
}


def problem() -> Problem:
    """The surface, with its lowest point."""
    space = build_space(SPACE, {}, {})
    return Problem(space, EPOCHS, 30, curve, final, lowest(space.unconditional, final))


def truth(params: Params, epoch: int = EPOCHS) -> float:
    """The validation loss after an epoch, without noise; infinite where the run diverges."""
    lr, batch = float(params["lr"]), float(params["batch"])
    decay, warmup, dropout = float(params["decay"]), float(params["warmup"]), float(params["dropout"])
    best = 2e-3 * math.sqrt(batch / 32)
    off = math.log10(lr / best)
    if off > 0.45 + 2.0 * warmup:
        return math.inf
    bowl = 0.35 * off**2 if off < 0 else 0.9 * off**2
    side = 0.04 * (math.log10(decay) + 1.3) ** 2 + 1.2 * (dropout - 0.12) ** 2 + 0.6 * (warmup - 0.08) ** 2
    speed = 0.55 * 10 ** min(0.0, 0.6 * off) * (32 / batch) ** 0.15
    learned = 1.6 * math.exp(-speed * epoch)
    strength = 0.6 * math.log10(decay / 0.05) + 4.0 * (dropout - 0.12)
    spoiled = 0.02 * max(0.0, epoch - 6) * max(0.0, -strength)
    return 1.0 + bowl + side + learned + spoiled


def curve(params: Params, seed: int) -> list[float]:
    """The losses that a run would log, one for each epoch; it ends where it diverges."""
    rng = Random(f"{sorted(params.items())} {seed}")
    shift = rng.gauss(0.0, NOISE)
    return sample_curve(truth, params, EPOCHS, rng, shift=shift, noise=NOISE / 3)


def final(params: Params) -> float:
    """The true value of a configuration: its best epoch, as early stopping keeps it, without noise."""
    return true_value(truth, params, EPOCHS)
