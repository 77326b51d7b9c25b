"""Dropout: units switched off at random (Srivastava et al. 2014, Dropout), as far as an architecture has it."""

from transformers import PretrainedConfig

from tunelab.errors import ConfigError


def rates(config: PretrainedConfig) -> dict[str, float]:
    """Every dropout rate of an architecture, by its own name; a rate that follows another one is not among them."""
    return {
        name: float(value)
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith("pdrop"))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    }


def on_attention(name: str) -> bool:
    """Whether a rate of that name drops attention weights."""
    return name.startswith(("attention", "attn"))


def set_rates(config: PretrainedConfig, everywhere: float | None, attention: float | None) -> None:
    """Set dropout rates of an architecture.

    Args:
        config: Changed in place, before the network is built from it.
        everywhere: Replaces every rate; None keeps them.
        attention: Replaces the rates on attention weights; None leaves them to `everywhere`.

    Raises:
        ConfigError: Where there is no such rate, so the setting would change nothing.
    """
    found = rates(config)
    asked = {"dropout": (everywhere, list(found)), "attention_dropout": (attention, list(filter(on_attention, found)))}
    faults = [
        f"regularization.{key}={rate}: {config.model_type} has no such dropout to set; take regularization=l2, or "
        "stochastic_depth, which every stack of layers has"
        for key, (rate, names) in asked.items()
        if rate is not None and not names
    ]
    if faults:
        raise ConfigError.listing(faults)
    for rate, names in asked.values():
        for name in names if rate is not None else ():
            setattr(config, name, rate)


def shown(config: PretrainedConfig) -> str:
    """The rates in words, and what the architecture lacks; "none" where nothing is dropped."""
    found = rates(config)
    if not any(found.values()):
        return "none"
    text = ", ".join(f"{name} {rate:g}" for name, rate in found.items() if rate)
    return text if not all(map(on_attention, found)) else f"{text} ({config.model_type} drops nothing else)"
