"""Memory of training on one device, split into what it is for.  Pure arithmetic on what was counted and measured."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from tunelab.inspection.passes import Passes


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, at their largest.

    Attributes:
        weights: Parameters and buffers.
        gradients: Of all that learns.
        optimizer: The optimizer's state.
        averages: Copies of the weights, where regularization keeps any.
        passes: What forward and backward passes take.
        step: What the optimizer's step takes for itself in passing.
        again: Whether the optimizer's step runs passes of its own.
        workspace: What matrix products keep for themselves, on a GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    averages: int
    passes: Passes
    step: int
    again: bool = False
    workspace: int = 0

    @property
    def activations(self) -> int:
        """What the heaviest pass takes besides the gradients that were there before it."""
        return max(self.passes.first, 0 if self.passes.later is None else self.passes.later - self.gradients)

    @property
    def peak(self) -> int:
        """The most at any one time.

        A step begins without gradients, and they grow as activations go.  So the top is the first pass alone, a later
        pass with the gradients of those before it, or the optimizer's step with all gradients, whichever is larger;
        weights, state, averages and the workspace are always there.
        """
        always = self.weights + self.optimizer + self.averages + self.workspace
        passing = max(self.passes.first, self.passes.later or 0)
        return always + (passing + self.step if self.again else max(passing, self.gradients + self.step))


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each storage counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
