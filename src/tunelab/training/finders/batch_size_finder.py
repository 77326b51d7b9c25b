"""`find=batch_size`: the gradient noise scale of the run, at its first weights and again after some training.

After McCandlish, Kaplan, Amodei et al. (2018), "An Empirical Model of Large-Batch Training": tr(S) / |G|^2, S the
covariance of one sequence's gradient and G the gradient of all.  A step over B sequences makes 1 / (1 + scale / B) of
the progress that a step along G would.

The paper takes the two from the norms at two batch sizes; here every piece of the data gives its own gradient, so S is
their sample covariance (the delta method where pieces weigh differently), which needs far fewer of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunelab.analysis.number_format import format_number
from tunelab.data.batching import longest_first, mix_seeds, shuffled_order, split_micro_batches
from tunelab.data.loader import BatchLoader
from tunelab.language.translation import translate
from tunelab.models.device_placement import TrainingPlacement
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import Block, Chart, Table
from tunelab.training.components import RunComponents, build_datamodule, build_module, count_planned_steps
from tunelab.training.finders.base import FinderResult
from tunelab.training.memory_profile import collate_rows
from tunelab.training.module import FineTuner
from tunelab.training.trial_steps import preserve_model, run_trial_steps


@dataclass(frozen=True)
class NoiseScale:
    """Signal and noise of the gradient, estimated from pieces of the data.

    Attributes:
        sequences: How many they were.
        noise: Trace of the covariance of one sequence's gradient.
        signal: Squared norm of the gradient of all, without what noise adds to it; 0 or less where noise hides it.
    """

    sequences: int
    noise: float
    signal: float

    @property
    def scale(self) -> float:
        """Sequences at which noise and gradient are equally large; infinite where noise hides the gradient."""
        return self.noise / self.signal if self.signal > 0 else math.inf

    def progress(self, batch_size: float) -> float:
        """Share of the progress of a step without noise that one over so many sequences makes."""
        return 1 / (1 + self.scale / batch_size)


class GradientPieces:
    """Adds up pieces of the data, each of the same number of sequences, one after another.

    Beside the gradients themselves it takes twice the memory of one.
    """

    def __init__(self) -> None:
        self.count = self.sequences = 0
        self.total: list[Tensor] = []  # sum of gradients of summed losses
        self.weighted_total: list[Tensor] = []  # the same, each times its units
        self.units = self.units_squared = self.squares = 0.0

    def add(self, gradients: Sequence[Tensor], *, units: float, sequences: int) -> None:
        """Take a piece.

        Args:
            gradients: Of the summed loss, one tensor per parameter.
            units: What its loss would be divided by.
            sequences: How many it holds.
        """
        if not self.total:
            self.total = [torch.zeros_like(gradient, dtype=torch.float32) for gradient in gradients]
            self.weighted_total = [torch.zeros_like(gradient, dtype=torch.float32) for gradient in gradients]
        for total, weighed, gradient in zip(self.total, self.weighted_total, gradients, strict=True):
            total.add_(gradient)
            weighed.add_(gradient, alpha=units)
        self.squares += inner_product(gradients, gradients)
        self.units += units
        self.units_squared += units**2
        self.count += 1
        self.sequences += sequences

    @property
    def estimate(self) -> NoiseScale:
        """The two sizes.

        A piece with gradient g and units u departs from the mean gradient G by r = g - u G; the variance of G over
        `count` pieces is the sum of |r|^2 over their squared units, times count / (count - 1).
        """
        square = inner_product(self.total, self.total) / self.units**2  # |G|^2
        across = inner_product(self.total, self.weighted_total) / self.units
        departures = self.squares - 2 * across + square * self.units_squared
        variance = departures / self.units**2 * self.count / (self.count - 1)
        return NoiseScale(self.sequences, variance * self.sequences, square - variance)


def inner_product(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """Inner product over all tensors, summed in double precision."""
    return sum(float((one.double() * other.double()).sum()) for one, other in zip(left, right, strict=True))


PIECE_SEQUENCES = 4  # sequences of one gradient
MIN_PIECES = 64  # pieces, or as many as there are
MAX_PIECES = 1024  # pieces
TRUST_FACTOR = 2  # times the scale that must have been seen for it to be trusted
LATER_STEPS = 50  # steps of training before the second look, or half of the run


@dataclass(frozen=True)
class NoiseMeasurement:
    """The noise scale at one time of the run.

    Attributes:
        step: Optimizer steps before it.
        noise_scale: What was seen.
    """

    step: int
    noise_scale: NoiseScale


def find_batch_size(components: RunComponents) -> FinderResult:
    """Measure twice; model and random numbers are afterwards as they were."""
    settings, model = components.settings, components.model
    later = min(LATER_STEPS, count_planned_steps(settings, components.epoch_rows) // 2)
    loader = build_datamodule(components).loader("train")
    with preserve_model(model):
        module = build_module(components, model)
        looks = [NoiseMeasurement(0, measure_noise_scale(components, module, loader))]
        if later:
            run_trial_steps(components, module, later, [])
            looks.append(NoiseMeasurement(later, measure_noise_scale(components, module, loader)))
    return batch_size_result(looks, settings.batch_size, len(components.examples["train"]))


def measure_noise_scale(components: RunComponents, module: FineTuner, loader: BatchLoader) -> NoiseScale:
    """The noise scale at the weights as they are, from as many rows as it takes to see it.

    Rows come in an order of their own, so that the first steps are not measured on what they have just learned.
    """
    order = shuffled_order(len(loader.examples), seed=mix_seeds(components.settings.seed, 1), epoch=0)
    size = max(1, min(PIECE_SEQUENCES, len(order) // 2))
    pieces = GradientPieces()
    with TrainingPlacement.from_config(components.settings.trainer).hold(module.model):
        for start in range(0, len(order) - size + 1, size):
            add_piece_gradient(
                pieces, module, loader, order[start : start + size], seed=mix_seeds(components.settings.seed, start)
            )
            if pieces.count % MIN_PIECES == 0 and (
                pieces.count >= MAX_PIECES or pieces.sequences >= TRUST_FACTOR * pieces.estimate.scale
            ):
                break
    return pieces.estimate


def add_piece_gradient(
    pieces: GradientPieces, module: FineTuner, loader: BatchLoader, rows: Sequence[int], *, seed: int
) -> None:
    """One more gradient, as training would compute it before clipping."""
    model = module.model
    torch.manual_seed(seed)  # dropout
    sorted_rows = longest_first(rows, loader.lengths)
    for micro in split_micro_batches(
        sorted_rows, loader.lengths, micro_tokens=loader.micro_tokens, packed=loader.packed
    ):
        module.compute_loss(micro_to_device(collate_rows(loader, micro), model.device))[1].backward()
    for weight in module.frozen_at_step(0):
        weight.grad = None
    learns = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in learns]
    pieces.add(gradients, units=sum(loader.loss_weights[row] for row in rows), sequences=len(rows))
    model.zero_grad(set_to_none=True)


def batch_size_result(looks: Sequence[NoiseMeasurement], batch_size: int, rows: int) -> FinderResult:
    """The finding in words and as a curve."""
    last = looks[-1].noise_scale
    reasons = [describe_measurement(look) for look in looks]
    value = min(nearest_power_of_two(last.scale), rows) if last.signal > 0 else None
    if value is None:
        reasons.append(
            translate(
                "so no batch of up to {sequences:,} [sequence|sequences] is too large; batch_size is {batch_size} now",
                sequences=last.sequences,
                batch_size=batch_size,
            )
        )
    else:
        other = (
            ""
            if value == batch_size
            else translate(", one over {value} {progress:.0%}", value=value, progress=last.progress(value))
        )
        reasons.append(
            translate(
                "a step over batch_size={batch_size} makes {progress:.0%} of the progress of a step "
                "without noise{other}: beyond {value}, twice the sequences save less than a third of "
                "the steps",
                batch_size=batch_size,
                progress=last.progress(batch_size),
                other=other,
                value=value,
            )
        )
        reasons.append(
            translate(
                "the scale grows while the loss falls, and Adam's scaling is not in it: take it as an order of size"
            )
        )
    numbers = {
        "looks": [
            {
                "step": look.step,
                "sequences": look.noise_scale.sequences,
                "noise": look.noise_scale.noise,
                "signal": look.noise_scale.signal,
                "scale": look.noise_scale.scale if look.noise_scale.signal > 0 else None,
            }
            for look in looks
        ]
    }
    pictures: list[Block] = [progress_figure(looks, batch_size), noise_table(looks)]
    return FinderResult("batch_size", value, reasons, numbers, pictures)


def describe_measurement(look: NoiseMeasurement) -> str:
    """One look in words."""
    when = translate("at the first weights") if not look.step else translate("after {step} steps", step=look.step)
    if look.noise_scale.signal <= 0:
        return translate(
            "{when} noise hides the gradient of {batch}: the scale is beyond that",
            when=when,
            batch=translate("{sequences:,} [sequence|sequences]", sequences=look.noise_scale.sequences),
        )
    doubt = (
        ""
        if look.noise_scale.sequences >= TRUST_FACTOR * look.noise_scale.scale
        else translate("; that is few for it, so it is uncertain")
    )
    return translate(
        "{when} the gradient noise scale is {scale} sequences ({seen}{doubt})",
        when=when,
        scale=format_number(look.noise_scale.scale),
        seen=translate("from {sequences:,} [sequence|sequences]", sequences=look.noise_scale.sequences),
        doubt=doubt,
    )


def nearest_power_of_two(scale: float) -> int:
    """The nearest power of two, by factors; at least 1."""
    return int(2 ** max(0, round(torch.tensor(scale).log2().item())))


def progress_figure(looks: Sequence[NoiseMeasurement], batch_size: int) -> Chart:
    """Progress of a step over its size."""
    sizes = [2**power for power in range(15)]
    known = [look for look in looks if look.noise_scale.signal > 0]
    series = [
        Series(
            translate("after {step} steps", step=look.step), sizes, [look.noise_scale.progress(size) for size in sizes]
        )
        for look in known
    ]
    drawn = line_chart(
        series,
        title=translate("Progress of a step"),
        x_label=translate("sequences in a step"),
        y_label=translate("share of a noiseless step"),
        x_scale="log", marks=[ReferenceLine(batch_size, f"batch_size={batch_size}")],
    )  # fmt: skip
    return Chart(
        "progress",
        drawn,
        translate("Up to the noise scale, twice the sequences make nearly twice the progress; beyond, little more."),
    )


def noise_table(looks: Sequence[NoiseMeasurement]) -> Table:
    """All that was measured."""
    head = (
        translate("steps before"),
        "sequences",
        translate("noise: trace of the covariance"),
        translate("signal: squared gradient"),
        translate("noise scale"),
    )
    rows = [
        tuple(
            format_number(value)
            for value in (
                x.step,
                x.noise_scale.sequences,
                x.noise_scale.noise,
                x.noise_scale.signal,
                x.noise_scale.scale,
            )
        )
        for x in looks
    ]
    return Table("noise", head, rows)
