"""A space as plain values, for those who read a study later."""

from typing import Any

from tunelab.search.dimension import Choice, Dimension
from tunelab.search.space import Space


def described(space: Space) -> dict[str, dict[str, Any]]:
    """Every setting of a space: its ends and its scale, or its values with their texts on a command line.

    One that only some configurations have says so under `when`.
    """
    found = {key: plain(dimension) for key, dimension in space.all().items()}
    for condition in space.when:
        for key in condition.dimensions:
            found[key].setdefault("when", f"{condition.key}={condition.value}")
    return found


def plain(found: Dimension) -> dict[str, Any]:
    """One setting."""
    if isinstance(found, Choice):
        return {"values": list(found.values), "texts": list(found.texts)}
    return {"low": found.low, "high": found.high, "integer": found.integer, "log": found.log}
