"""Functions that configs may call: `${adapter_rate:rate,scale,optimizer}` and `${times:value,factor}`."""

from omegaconf import OmegaConf


def adapter_rate(own: float, scale: float, optimizer: str) -> float:
    """The peak rate for an adapter.

    Adam and its kin take steps of one size whatever the gradient, so small new weights need larger ones.  Plain
    descent follows the gradient: with LoRA its own rate is best as it is, and ten times that fails to learn.  A line
    search finds the length of a step by itself.

    Args:
        own: The optimizer's own rate for full training.
        scale: What it is multiplied by.
        optimizer: The optimizer's `_target_`.

    Returns:
        The product, rounded so that ten times 2e-5 reads 0.0002; `own` for plain descent and L-BFGS.
    """
    return float(own) if optimizer.endswith((".SGD", ".LBFGS")) else float(f"{float(own) * float(scale):.12g}")


def times(value: float, factor: float) -> float:
    """A setting times a factor, such as an end of a range around it; rounded so that ten times 2e-5 reads 0.0002."""
    return float(f"{float(value) * float(factor):.12g}")


def register_resolvers() -> None:
    """Make them known, before a config is looked at."""
    OmegaConf.register_new_resolver("times", times, replace=True)
    OmegaConf.register_new_resolver("adapter_rate", adapter_rate, replace=True)
