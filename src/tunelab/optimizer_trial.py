"""An optimizer is made for stand-ins before anything loads, so that what its own class refuses is told in time."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch.nn import Parameter

from tunelab import build


def refusals(block: Mapping[str, Any]) -> list[str]:
    """What an optimizer's class says against its settings.

    Args:
        block: Of the optimizer, without faults as `build.faults_of` tells them.
    """
    target = str(block["_target_"])
    if build.lacking(target):
        return []
    matrix, vector = Parameter(torch.zeros(2, 2)), Parameter(torch.zeros(2))
    given = {"hidden": [matrix]} if "hidden" in signature(build.find(target)).parameters else {}
    try:
        build.make(block, **given)([{"params": [one], "weight_decay": 0.0} for one in (matrix, vector)])
    except (TypeError, ValueError) as fault:
        return [f"optimizer: {build.first_line(fault)}; see the comments in its file under conf/optimizer/"]
    return []
