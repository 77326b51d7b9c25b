"""State of a module of which only a part is trained: kept without the rest, and loaded without losing any of it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def frozen_keys(module: nn.Module) -> set[str]:
    """Keys of the parameters that do not learn, under every name they have."""
    return {name for name, weight in module.named_parameters(remove_duplicate=False) if not weight.requires_grad}


def trained_only(module: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A state without frozen parameters, and without what describes them (the constants of 4-bit weights)."""
    frozen = frozen_keys(module)
    return {
        key: value
        for key, value in state.items()
        if key not in frozen and not any(key.startswith(f"{name}.") for name in frozen)
    }


def load_trained(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state that may lack frozen parameters, and nothing else.

    Raises:
        RuntimeError: If something that learns is missing, or the state holds what the module does not know.
    """
    found = nn.Module.load_state_dict(module, state, strict=False)
    wanted = trained_only(module, dict.fromkeys(found.missing_keys))
    faults = [f"missing: {key}" for key in wanted] + [f"unknown: {key}" for key in found.unexpected_keys]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise RuntimeError(f"the weights belong to another model or adapter; {', '.join(faults[:3])}{more}")
