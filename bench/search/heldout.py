"""A second made-up fine-tuning that nothing was tuned on: it was written down before any search had seen it.

It differs from `surface.py` in what a search could have been fitted to.  Three optimizers, each with settings of its
own and its best rate decades apart; the number of trained layers as whole numbers; the optimum near the edge of a
range; slow learners that end best, so that early scores mislead; noise that grows with the rate and is heavy-tailed, as
seeds of real fine-tunings are (one run in twelve ends far worse for no reason of its settings).
"""

import math
from functools import cache
from random import Random

import made_up
from made_up import sample_curve, true_value
from problem import Params, Problem

from tunelab.search.space import build_space

EPOCHS = 10  # validations of a whole run
TRIALS = 30  # whole runs that the budget pays for
NOISE = 0.006  # standard deviation of the final loss over seeds, at the best rate
UNLUCKY = 1 / 12  # share of runs that end worse by chance

PARAMS = {
    "optimizer": ["adamw", "lion", "sgd"],
    "lr": "interval(1e-6,1.0)",
    "layers": "int(interval(1,12))",
    "smoothing": "interval(0.0,0.2)",
    "warmup": "interval(0.0,0.4)",
    "schedule": ["constant", "linear", "cosine"],
}
WHEN = {
    "optimizer=adamw": {"decay": "interval(1e-4,1.0)", "beta2": [0.95, 0.98, 0.999]},
    "optimizer=lion": {"decay": "interval(1e-4,1.0)"},
    "optimizer=sgd": {"momentum": "interval(0.0,0.99)"},
}
BEST_RATE = {"adamw": 6e-4, "lion": 8e-5, "sgd": 0.12}
FLOOR = {"adamw": 0.0, "lion": 0.02, "sgd": 0.07}  # what each optimizer loses at its best
SCHEDULE = {"constant": 0.05, "linear": 0.0, "cosine": 0.012}
BETA = {0.95: 0.015, 0.98: 0.0, 0.999: 0.008}


def problem() -> Problem:
    """The surface, with its lowest point."""
    space = build_space(PARAMS, WHEN, {})
    return Problem(space, EPOCHS, TRIALS, curve, final, lowest())


def off_rate(params: Params) -> float:
    """Decades that the rate lies above the best one of its optimizer; momentum counts as a larger rate."""
    optimizer = str(params["optimizer"])
    rate = float(params["lr"])
    if optimizer == "sgd":
        rate /= 1.0 - float(params["momentum"]) + 0.02
        return math.log10(rate / (BEST_RATE["sgd"] * 10))
    return math.log10(rate / BEST_RATE[optimizer])


def truth(params: Params, epoch: int = EPOCHS) -> float:
    """The validation loss after an epoch, without noise; infinite where the run diverges."""
    optimizer, off = str(params["optimizer"]), off_rate(params)
    warmup, layers, smoothing = float(params["warmup"]), int(params["layers"]), float(params["smoothing"])
    if off > 0.6 + 1.5 * warmup:
        return math.inf
    bowl = 0.22 * off**2 if off < 0 else 0.6 * off**2
    depth = 0.006 * (layers - 11) ** 2 if layers < 11 else 0.0  # nearly the whole model: at the edge of the range
    side = 1.5 * (smoothing - 0.03) ** 2 + 0.4 * max(0.0, warmup - 0.1) ** 2 + SCHEDULE[str(params["schedule"])]
    own = FLOOR[optimizer]
    if optimizer == "adamw":
        own += BETA[float(params["beta2"])] + 0.02 * (math.log10(float(params["decay"])) + 1.0) ** 2
    elif optimizer == "lion":
        own += 0.015 * (math.log10(float(params["decay"])) + 0.3) ** 2
    else:
        own += 0.1 * (float(params["momentum"]) - 0.9) ** 2
    # what trains many layers, at a falling rate, is slow at first and ends best
    patience = 0.25 + 0.03 * layers + (0.2 if params["schedule"] != "constant" else 0.0)
    learned = 1.4 * math.exp(-epoch / (1.2 + 2.0 * patience)) * (1.0 + 0.5 * max(0.0, -off))
    spoiled = 0.012 * max(0.0, epoch - 7) * max(0.0, off + 0.2)
    return 0.8 + bowl + depth + side + own + learned + spoiled


def curve(params: Params, seed: int) -> list[float]:
    """The losses that a run would log, one for each epoch; it ends where it diverges."""
    rng = Random(f"{sorted(params.items())} {seed} held out")
    shift = rng.gauss(0.0, NOISE) * (1.0 + max(0.0, off_rate(params)) * 3.0)
    if rng.random() < UNLUCKY:
        shift += rng.expovariate(1 / 0.15)
    return sample_curve(truth, params, EPOCHS, rng, shift=shift, noise=NOISE / 2)


def final(params: Params) -> float:
    """The true value of a configuration: its best epoch, as early stopping keeps it, without noise."""
    return true_value(truth, params, EPOCHS)


@cache
def lowest() -> float:
    """The lowest true value of all configurations, by differential evolution for each optimizer."""
    space = build_space(PARAMS, WHEN, {})
    return min(
        made_up.lowest(
            {
                key: dimension
                for key, dimension in space.active_dimensions({"optimizer": optimizer}).items()
                if key != "optimizer"
            },
            final,
            {"optimizer": optimizer},
        )
        for optimizer in BEST_RATE
    )
