"""Memory of training on one device, split into what it is for.  Pure arithmetic on what was counted and measured."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from tunelab.inspection.activations import Kept


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, at their largest.

    Attributes:
        weights: Parameters and buffers.
        gradients: Of all that learns.
        optimizer: The optimizer's state.
        averages: Averages of the weights, where regularization keeps any.
        first: What the heaviest forward pass keeps, where no other went before it in its step.
        later: The same for one that did, so that gradients stand beside it; None where every step is one pass.
        step: What the optimizer's step takes for itself in passing.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int
    first: Kept
    later: Kept | None
    step: int

    @property
    def activations(self) -> int:
        """The largest of all passes."""
        return max(kept.total for kept in (self.first, self.later) if kept)

    @property
    def peak(self) -> int:
        """The most at any one time.

        A step begins without gradients, and they grow as activations go.  So the top is the first pass alone, a later
        pass with the gradients of those before it, or the optimizer's step with all gradients, whichever is larger;
        weights, state and averages are always there.
        """
        always = self.weights + self.optimizer + self.averages
        later = self.later.total + self.gradients if self.later else 0
        return always + max(self.first.total, later, self.gradients + self.step)


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each storage counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
