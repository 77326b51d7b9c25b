"""Muon for hidden matrices, AdamW for all else, as one optimizer.

Muon makes the step of a matrix orthogonal (Jordan et al. 2024; Liu et al. 2025, Muon is Scalable for LLM Training).
That means something for maps between hidden units only: embeddings and heads are tables, gains and biases vectors.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from typing_extensions import override

from tunelab.errors import ConfigError
from tunelab.language.translation import translate


class Muon(Optimizer):
    """PyTorch's Muon and AdamW over one list of groups and one state, so that rates and checkpoints see one optimizer.

    Args:
        params: Groups of parameters.
        hidden: Those among them that are matrices inside the layers.
        lr: Peak rate of both: steps of Muon are scaled to the size of AdamW's.
        momentum: Memory of Muon's gradient.
        nesterov: Whether a step of Muon looks ahead along the momentum.
        ns_steps: Rounds of the iteration that makes a step orthogonal.
        betas: Of AdamW.
        eps: Of AdamW.

    Raises:
        ConfigError: If no hidden matrix is trained.
    """

    def __init__(
        self,
        params: Any,
        hidden: Collection[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        inside = {id(weight) for weight in hidden if weight.ndim == 2}
        groups = [
            {**group, "params": chosen, "orthogonal": orthogonal}
            for group in params
            for orthogonal in (True, False)
            if (chosen := [weight for weight in group["params"] if (id(weight) in inside) is orthogonal])
        ]
        of_muon = [group for group in groups if group["orthogonal"]]
        of_adamw = [group for group in groups if not group["orthogonal"]]
        if not of_muon:
            raise ConfigError(
                translate(
                    "optimizer=muon: no matrix inside the layers is trained here, and it steps those "
                    "alone; take optimizer=adamw"
                )
            )
        self.parts: list[tuple[bool, Optimizer]] = [
            (
                True,
                torch.optim.Muon(
                    of_muon, lr, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
                ),
            )
        ]
        if of_adamw:
            self.parts.append((False, torch.optim.AdamW(of_adamw, lr, (betas[0], betas[1]), eps)))
        super().__init__([group for _, part in self.parts for group in part.param_groups], {})

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for orthogonal, part in self.parts:
            part.param_groups = [group for group in self.param_groups if group["orthogonal"] is orthogonal]
            part.state = self.state  # loading a checkpoint replaces both, so they are set anew at every step
            part.step()
        return loss
