"""One number for each sequence of a micro-batch, laid over its hidden states.

Shape letters: S sequences, B rows (B = S, or 1 where documents lie end to end), T tokens, H hidden.
"""

from torch import Tensor

from tunelab.data.examples import Micro


def per_sequence(values: Tensor, micro: Micro) -> Tensor:
    """Values (S,) in a shape that multiplies hidden states (B, T, H): (S, 1, 1), or (1, T, 1) for flat rows."""
    if micro.bounds is None:
        return values[:, None, None]
    return values.repeat_interleave(micro.lengths)[None, :, None]
