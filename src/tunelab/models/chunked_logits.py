"""Logits a part at a time: loss, gradient and scores of a causal model without the logits of all positions at once.

The logits of a pass are often its largest tensors: positions times vocabulary, and three or four times that with their
gradient.  Here the states before the head are cut into parts; of each the head computes logits, loss and gradient, and
lets go of the logits (as Liger Kernel does, Hsu et al. 2024).  Nothing is computed twice.

Shape letters: N supervised positions, H hidden, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

LOGITS_BUDGET = 32 * 2**20  # bytes of float32 logits that may stand at once on a CPU; a part has half of them
# Elsewhere each part reads and adds to the whole matrix of the head: a thousand positions are worth it.
DEVICE_LOGITS_BUDGET = 2**30
LEAST_ROWS = 256  # positions of a part, however large the vocabulary: fewer wait for the matrix of the head to be read


def logits_budget(device: torch.device) -> int:
    """Bytes of float32 logits that may stand at once on a device."""
    return LOGITS_BUDGET if device.type == "cpu" else DEVICE_LOGITS_BUDGET


@dataclass(frozen=True)
class ChunkedLogits:
    """Logits at supervised positions that are computed a part at a time.

    Attributes:
        hidden: What goes into the head, (N, H).
        head: The head of the model.
        scale: What the model does with the output of its head.
        vocabulary: V.
    """

    hidden: Tensor
    head: nn.Module
    scale: Callable[[Tensor], Tensor]
    vocabulary: int

    @property
    def rows(self) -> int:
        """Positions of a part."""
        return max(LEAST_ROWS, logits_budget(self.hidden.device) // 2 // (4 * self.vocabulary))

    def compute(self, hidden: Tensor) -> Tensor:
        """Logits of some states."""
        return self.scale(self.head(hidden))

    def parts(self) -> Iterator[Tensor]:
        """The logits, part by part."""
        return (self.compute(states) for states in self.hidden.split(self.rows))

    def loss_sum(self, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The summed cross entropy, a float32 scalar with a graph.

        Args:
            targets: (N,).
            label_smoothing: Probability moved from the right token to the whole vocabulary.
        """
        if not torch.is_grad_enabled():
            return sum(
                (
                    functional.cross_entropy(part.float(), own, reduction="sum", label_smoothing=label_smoothing)
                    for part, own in zip(self.parts(), targets.split(self.rows), strict=True)
                ),
                start=self.hidden.new_zeros((), dtype=torch.float32),
            )
        learned = [weight for weight in self.head.parameters() if weight.requires_grad]
        loss: Tensor = SummedLoss.apply(self, targets, label_smoothing, self.hidden, *learned)  # type: ignore[no-untyped-call]
        return loss

    def log_probabilities(self, targets: Tensor) -> Tensor:
        """Log-probability of each target, (N,) float32; in the backward pass the logits are computed again.

        Args:
            targets: (N,).
        """

        def of_part(states: Tensor, own: Tensor) -> Tensor:
            return -functional.cross_entropy(self.compute(states).float(), own, reduction="none")

        pairs = zip(self.hidden.split(self.rows), targets.split(self.rows), strict=True)
        return torch.cat([checkpoint(of_part, states, own, use_reentrant=False) for states, own in pairs])


class SummedLoss(torch.autograd.Function):
    """Cross entropy summed over positions; its gradient is computed with it, part by part."""

    @staticmethod
    def forward(
        ctx: Any, logits: ChunkedLogits, targets: Tensor, smoothing: float, hidden: Tensor, *learned: Tensor
    ) -> Tensor:
        """The loss of all parts; keeps the gradients of the states and of what learns in the head."""
        total = hidden.new_zeros((), dtype=torch.float32)
        states_gradient = torch.empty_like(hidden)
        gradients = [torch.zeros_like(weight) for weight in learned]
        for states, own, gradient in zip(
            hidden.split(logits.rows), targets.split(logits.rows), states_gradient.split(logits.rows), strict=True
        ):
            total += add_part(logits, states, own, smoothing, learned, gradient, gradients)
        ctx.gradients = [states_gradient, *gradients]
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that are there, times that of the loss; once only, as they are handed on, not copied."""
        kept, ctx.gradients = ctx.gradients, None
        if kept is None:
            raise RuntimeError("the gradient of this loss has been taken already; compute the loss again")
        return None, None, None, *(gradient.mul_(grads[0].to(gradient.dtype)) for gradient in kept)


def add_part(
    logits: ChunkedLogits,
    states: Tensor,
    targets: Tensor,
    smoothing: float,
    learned: tuple[Tensor, ...],
    states_gradient: Tensor,
    gradients: list[Tensor],
) -> Tensor:
    """The summed loss of a part; fills in the gradient of its states, and adds to those of what learns."""
    plain = plain_linear(logits.head, states)
    if plain is not None and logits.scale is unscaled:  # into the sums at once, without copies
        weight, bias = plain.weight, plain.bias
        loss, slope = loss_and_slope(functional.linear(states, weight, bias), targets, smoothing)
        torch.mm(slope, weight, out=states_gradient)
        for parameter, gradient in zip(learned, gradients, strict=True):
            if parameter is weight:
                gradient.addmm_(slope.T, states)
            else:
                gradient.add_(slope.sum(0))
        return loss
    with torch.enable_grad():
        inside = states.detach().requires_grad_()
        outside = logits.compute(inside)
    loss, slope = loss_and_slope(outside.detach().float(), targets, smoothing)
    slopes = torch.autograd.grad(outside, [inside, *learned], slope.to(outside.dtype), allow_unused=True)
    states_gradient.copy_(slopes[0])
    for gradient, part in zip(gradients, slopes[1:], strict=True):
        if part is not None:
            gradient.add_(part)
    return loss


def loss_and_slope(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The summed cross entropy of float32 logits (N, V), and its gradient for them."""
    log_probabilities, places = logits.log_softmax(-1), targets[:, None]
    right = -log_probabilities.gather(1, places).sum()
    loss = right if not smoothing else (1 - smoothing) * right - smoothing * log_probabilities.mean(-1).sum()
    slope = log_probabilities.exp_()
    if smoothing:
        slope -= smoothing / slope.shape[1]
    return loss, slope.scatter_add_(1, places, slope.new_full(places.shape, smoothing - 1))


def plain_linear(head: nn.Module, states: Tensor) -> nn.Linear | None:
    """The head where it is one product in float32, so that its gradients are two; else None."""
    if (
        type(head) is nn.Linear
        and head.weight.dtype == states.dtype == torch.float32
        and not torch.is_autocast_enabled(states.device.type)
        and len(head._forward_hooks) == 0
        and len(head._forward_pre_hooks) == 1  # that of the supervised positions
    ):
        return head
    return None


def unscaled(logits: Tensor) -> Tensor:
    """The logits as they are."""
    return logits


def known_scales(config: Any) -> Iterator[Callable[[Tensor], Tensor]]:
    """Ways in which families change the output of their head, by what their config says; the plain one last."""
    for name in ("final_logit_softcapping", "logits_soft_cap"):
        if isinstance(cap := getattr(config, name, None), int | float) and cap:
            yield lambda logits, cap=cap: torch.tanh(logits / cap) * cap  # type: ignore[misc]
    for name in ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier"):
        if isinstance(factor := getattr(config, name, None), int | float) and factor not in (0, 1):
            yield lambda logits, factor=factor: logits * factor  # type: ignore[misc]
            yield lambda logits, factor=factor: logits / factor  # type: ignore[misc]
    yield unscaled


@torch.no_grad()
def find_scale(model: PreTrainedModel, head: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What a model does with the output of its head, found on numbers far apart; None where it is nothing known."""
    seen = list[Tensor]()

    def replace(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        numbers = torch.linspace(-90, 90, prod(output.shape), device=output.device)
        seen.append(numbers.view(output.shape).to(output.dtype))
        return seen[-1]

    training = model.training
    handle = head.register_forward_hook(replace)
    model.eval()
    try:
        logits = model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False).logits
    finally:
        handle.remove()
        model.train(training)
    if len(seen) != 1 or seen[0].shape != logits.shape:
        return None
    exact = 1e-6 if seen[0].dtype in (torch.float32, torch.float64) else 1e-2
    return next(
        (
            scale
            for scale in known_scales(model.config.get_text_config())
            if torch.allclose(scale(seen[0]).float(), logits.float(), rtol=exact, atol=exact)
        ),
        None,
    )
