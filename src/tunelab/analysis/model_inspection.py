"""The parts of a fresh model, the sizes of its first signals and gradients, and whether they vanish or explode.

After Glorot and Bengio (2010): a network learns when neither activations nor gradients change their scale much from
layer to layer.  Both are looked at along the layers: the ratio of the last to the first, and the factor per layer
that a line through the logarithms has.

* exploding: a value is not finite; or the ratio is above 10,000; or it is above 100 and the factor above 3 per layer.
* vanishing: the same below 1/10,000, or below 1/100 at less than 1/3 per layer; or half of the layers change what
  enters them by less than 1/10,000 of its size, or all of them together by less than a tenth, so that the depth does
  nothing.
* healthy: anything else.  Residual networks grow with the root of their depth, and pretrained ones a few hundred times
  over dozens of layers, which the two bounds leave room for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.language.translation import message, translate
from tunelab.models.freezing import layer_stack, parameter_depths


@dataclass(frozen=True)
class ModelPart:
    """Everything at one depth.

    Attributes:
        name: As `ParameterDepths.name` calls it.
        parameters: How many; shared ones count at the lowest place.
        trainable: How many of them learn.
    """

    name: str
    parameters: int
    trainable: int


def model_parts(model: PreTrainedModel) -> list[ModelPart]:
    """The parts from the bottom up; those without a parameter are left out."""
    depths = parameter_depths(model)
    counts: dict[int, list[int]] = {}
    for name, weight in model.named_parameters():
        entry = counts.setdefault(depths.by_name[name], [0, 0])
        entry[0] += weight.numel()
        entry[1] += weight.numel() if weight.requires_grad else 0
    return [ModelPart(depths.name(depth), *counts[depth]) for depth in sorted(counts)]


def architecture_sizes(model: PreTrainedModel) -> Mapping[str, str | int | None]:
    """The architecture in numbers, by name."""
    config = model.config.get_text_config()
    return {
        message("family"): model.config.model_type,
        message("layers"): getattr(config, "num_hidden_layers", None),
        message("width"): getattr(config, "hidden_size", None),
        message("feed-forward"): getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None),
        message("heads"): getattr(config, "num_attention_heads", None),
        message("key and value heads"): getattr(config, "num_key_value_heads", None),
        message("context"): getattr(config, "max_position_embeddings", None),
        message("vocabulary"): config.vocab_size,
        message("attention"): model.config._attn_implementation,
        message("parameters"): sum(weight.numel() for weight in model.parameters()),
        message("trainable"): sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
    }


@dataclass
class LayerSignals:
    """Root mean squares along the depth.

    Attributes:
        names: From the embeddings up.
        forward: Of each part's output.
        backward: Of the loss's gradient with respect to that output; nan where none passes, below frozen weights.
        relative_change: Of what each layer changes, as a share of what enters it; nan for the embeddings.
    """

    names: list[str] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    relative_change: list[float] = field(default_factory=list)


def measure_layer_signals(model: PreTrainedModel, loss: Callable[[], Tensor]) -> LayerSignals:
    """Run one micro-batch forward and backward, and watch the layers.

    Args:
        model: Its gradients are cleared afterwards, its weights stay.
        loss: Runs the forward pass; the mean loss.
    """
    stack, count = layer_stack(model)
    watched = [model.get_submodule(f"{stack}.{place}") for place in range(count)]
    signals = LayerSignals(names=["embeddings", *(f"layer {place + 1}" for place in range(count))])
    signals.forward, signals.backward, signals.relative_change = ([float("nan")] * (count + 1) for _ in range(3))
    handles = [
        layer.register_forward_hook(partial(record_layer, signals, place), with_kwargs=True)
        for place, layer in enumerate(watched, start=1)
    ]
    try:
        loss().backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    return signals


def record_layer(signals: LayerSignals, place: int, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    """Note the size of what enters and leaves a layer, and of the gradients there; later passes overwrite earlier."""
    entered = args[0] if args else kwargs["hidden_states"]
    left = output[0] if isinstance(output, tuple) else output
    if place == 1:
        signals.forward[0] = root_mean_square(entered)
        record_gradient(signals, 0, entered)
    signals.forward[place] = root_mean_square(left)
    signals.relative_change[place] = root_mean_square(left.detach().float() - entered.detach().float()) / max(
        signals.forward[place - 1], 1e-300
    )
    record_gradient(signals, place, left)


def record_gradient(signals: LayerSignals, place: int, tensor: Tensor) -> None:
    """Have the size of a tensor's gradient written down when it comes."""

    def write(gradient: Tensor) -> None:
        signals.backward[place] = root_mean_square(gradient)

    if tensor.requires_grad:
        tensor.register_hook(write)


def root_mean_square(tensor: Tensor) -> float:
    """Root mean square, computed in double precision: squares of small gradients are 0 in single."""
    return float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64) / max(1, tensor.numel()) ** 0.5)


MAX_RATIO = 1e4  # ratio of last to first that is too much at any depth
SUSPECT_RATIO = 1e2  # ratio that is too much where few layers make it
STEEP_FACTOR = 3.0  # factor of one layer that counts as few
MIN_LAYER_CHANGE = 1e-4  # share of its input that a layer changes at least
MIN_TOTAL_CHANGE = 0.1  # the same of all layers, summed: what they change at most

SignalHealth = Literal["healthy", "vanishing", "exploding"]


@dataclass(frozen=True)
class SignalVerdict:
    """The verdict on the signals of an untrained model.

    Attributes:
        health: In a word.
        reasons: In sentences; the measurements where it is healthy.
        growth: Fitted factor per layer of the signal going up; nan where it is unknown.
        gradient_growth: The same of the gradient going down.
    """

    health: SignalHealth
    reasons: list[str]
    growth: float
    gradient_growth: float


def assess_signals(signals: LayerSignals) -> SignalVerdict:
    """The verdict on what was measured."""
    ways = {
        translate("activation RMS"): [value for value in signals.forward],
        translate("gradient RMS"): [value for value in reversed(signals.backward) if not math.isnan(value)],
    }
    faults: list[tuple[SignalHealth, str]] = []
    sentences = []
    for what, values in ways.items():
        word, sentence = assess_direction(what, values)
        faults += [(word, sentence)] * (word != "healthy")
        sentences.append(sentence)
    changes = [value for value in signals.relative_change[1:] if not math.isnan(value)]
    if changes and not faults and any(changes) and median(changes) < MIN_LAYER_CHANGE:
        least = f"{median(changes):.1e}"
        faults.append(
            (
                "vanishing",
                translate("half of the layers change what enters them by {least} of its size or less", least=least),
            )
        )
    elif any(changes) and not faults and sum(changes) < MIN_TOTAL_CHANGE:
        faults.append(
            (
                "vanishing",
                translate(
                    "all layers together change what enters them by {changes:.1e} of its size or less",
                    changes=sum(changes),
                ),
            )
        )
    elif changes and not any(changes):
        sentences.append(translate("every layer starts as the identity"))
    word = next((word for word, _ in faults if word == "exploding"), faults[0][0] if faults else "healthy")
    growths = [growth_per_layer(values) for values in ways.values()]
    return SignalVerdict(word, [sentence for _, sentence in faults] or sentences, *growths)


def assess_direction(what: str, values: Sequence[float]) -> tuple[SignalHealth, str]:
    """The verdict on one way through the layers, and the sentence for it."""
    ends = (
        translate("last over first layer")
        if what == translate("activation RMS")
        else translate("first over last layer")
    )
    if any(not math.isfinite(value) for value in values):
        return "exploding", translate("{what} is not finite", what=what)
    if len(values) < 2:
        return "healthy", translate("{what} is known in fewer than two layers", what=what)
    if not all(values):
        return "vanishing", translate(
            "{what} is 0 in {zeros} of {count} [place|places]",
            what=what,
            zeros=sum(not value for value in values),
            count=len(values),
        )
    ratio, each = values[-1] / values[0], growth_per_layer(values)
    sentence = translate(
        "{what}, {ends}: {ratio:.3g} ({each:.3g} per layer)", what=what, ends=ends, ratio=ratio, each=each
    )
    if ratio > MAX_RATIO or (ratio > SUSPECT_RATIO and each > STEEP_FACTOR):
        return "exploding", sentence
    if ratio < 1 / MAX_RATIO or (ratio < 1 / SUSPECT_RATIO and each < 1 / STEEP_FACTOR):
        return "vanishing", sentence
    return "healthy", sentence


def growth_per_layer(values: Sequence[float]) -> float:
    """The factor per layer: e to the slope of the least-squares line through the logarithms."""
    if len(values) < 2 or any(not math.isfinite(value) or value <= 0 for value in values):
        return math.nan
    middle = (len(values) - 1) / 2
    logs = [math.log(value) for value in values]
    slope = sum((place - middle) * log for place, log in enumerate(logs))
    return math.exp(slope / sum((place - middle) ** 2 for place in range(len(values))))
