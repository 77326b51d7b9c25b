"""What `find=` cannot go together with."""

from collections.abc import Mapping
from typing import Any


def find_faults(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with looking for a value here.

    Args:
        values: The settings by their top-level names.
    """
    wanted = values.get("find")
    if wanted is None:
        return []
    faults = []
    if values.get("resume") is not None:
        faults.append(f"find={wanted} looks at a run before it starts, so it cannot go with resume; leave one out")
    if values.get("trial", {}).get("id") is not None:
        faults.append(f"find={wanted} trains nothing that a search could compare; leave out -m or find")
    return faults
