"""Requirements of each regularization method on a model, and notes on methods with surprising effects."""

from torch import nn
from transformers import PreTrainedModel

from tunelab.config.schema import RegularizationConfig, TargetConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.architecture import dropout_rates
from tunelab.models.freezing import parameter_depths
from tunelab.regularization.noise import stacked_layers
from tunelab.regularization.penalties import LinearWeight, trainable_linear_weights


def mixout_weights(model: PreTrainedModel, head: str) -> list[LinearWeight]:
    """The linear layers that have a pretrained state to fall back to: a new head has none."""
    depths = parameter_depths(model)
    return [
        layer
        for layer in trainable_linear_weights(model)
        if head == "causal" or depths.by_name[layer.name] != depths.head_depth
    ]


def has_random_forward(model: PreTrainedModel, settings: RegularizationConfig) -> bool:
    """Whether two passes in training mode differ."""
    layers = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    noise = (settings.neftune, settings.mixout, settings.stochastic_depth, *dropout_rates(model.config).values())
    return layers or any(noise)


def check_model_support(model: PreTrainedModel, settings: RegularizationConfig, *, head: str) -> None:
    """Stop a run whose model gives a method nothing to work on.

    Raises:
        ConfigError: Naming every such method.
    """
    family, faults = model.config.model_type, []
    if settings.rdrop and not has_random_forward(model, settings):
        faults.append(
            translate(
                "regularization.rdrop={rdrop:g} compares two passes with different dropout, and this "
                "{family} model drops nothing, so they would agree; set regularization.dropout=0.1, "
                "or a noise such as neftune",
                rdrop=settings.rdrop,
                family=family,
            )
        )
    if settings.stochastic_depth and not stacked_layers(model):
        faults.append(
            translate(
                "regularization.stochastic_depth={stochastic_depth:g}: no stack of layers was found "
                "in this {family} model; take regularization=dropout",
                stochastic_depth=settings.stochastic_depth,
                family=family,
            )
        )
    if settings.mixout and not mixout_weights(model, head):
        faults.append(
            translate(
                "regularization.mixout={mixout:g} swaps weights of linear layers, and none below a "
                "new head learns here; take adapter=full or adapter=lora",
                mixout=settings.mixout,
            )
        )
    if settings.max_norm and not any(True for _ in trainable_linear_weights(model)):
        faults.append(
            translate(
                "regularization.max_norm={max_norm:g} bounds rows of linear layers, and none learns "
                "here; take adapter=full or adapter=lora",
                max_norm=settings.max_norm,
            )
        )
    if settings.l1 and not any(p.requires_grad and p.ndim >= 2 for p in model.parameters()):
        faults.append(
            translate(
                "regularization.l1={l1:g} shrinks matrices, and none learns here; take adapter=lora", l1=settings.l1
            )
        )
    if faults:
        raise ConfigError.listing(faults)


HEAVY_PENALTY = 0.1  # nats of penalty that a line search would rather lower than the loss


def regularization_notes(model: PreTrainedModel, settings: RegularizationConfig, optimizer: TargetConfig) -> list[str]:
    """Notes on what depends on how large the weights are now.

    Args:
        model: Before its first step.
        settings: The block `regularization`.
        optimizer: Its block.
    """
    notes = []
    if settings.max_norm:
        longest = max(float(x.weight.detach().norm(dim=1 - x.units).max()) for x in trainable_linear_weights(model))
        if longest < settings.max_norm:
            notes.append(
                translate(
                    "regularization.max_norm={max_norm:g} changes nothing as long as no row is longer; "
                    "the longest is {longest:.3g} now",
                    max_norm=settings.max_norm,
                    longest=longest,
                )
            )
    if settings.weight_decay and optimizer.name == "LBFGS":
        learned = [p.detach() for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        penalty = settings.weight_decay / 2 * sum(float(weight.square().sum()) for weight in learned)
        if penalty > HEAVY_PENALTY:
            notes.append(
                translate(
                    "regularization.weight_decay={weight_decay:g} adds {penalty:.3g} to the loss, and "
                    "lbfgs goes straight for the lowest sum, by shrinking weights; {heavier:.0e} "
                    "would add {heavy_penalty:g}",
                    weight_decay=settings.weight_decay,
                    penalty=penalty,
                    heavier=settings.weight_decay * HEAVY_PENALTY / penalty,
                    heavy_penalty=HEAVY_PENALTY,
                )
            )
    return notes
