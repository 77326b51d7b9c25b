"""What one forward pass keeps for its backward pass, in bytes: measured on the very model and micro-batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Kept:
    """Bytes that live between forward and backward.

    Attributes:
        saved: Tensors that the backward pass will read, weights left out.
        head: What the output head adds at the top of the backward pass: its logits, and their gradient.
    """

    saved: int
    head: int

    @property
    def total(self) -> int:
        """Both."""
        return self.saved + self.head


def kept(model: PreTrainedModel, forward: Callable[[], Tensor]) -> Kept:
    """Run a forward pass and add up what autograd keeps of it.

    Each storage counts once, however many tensors look at it; parameters and buffers are counted elsewhere.

    Args:
        model: Its weights are left out.
        forward: Runs the pass and returns the loss; the graph is dropped afterwards.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, int] = {}
    logits = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor  # the graph keeps it, so that no other storage gets its address meanwhile

    def head_output(module: nn.Module, args: object, output: Tensor) -> None:
        logits[0] = max(logits[0], output.numel() * (output.element_size() + torch.float32.itemsize))

    head = model.get_output_embeddings() if model.can_generate() else None
    watch = head.register_forward_hook(head_output) if isinstance(head, nn.Module) else None
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = forward()
        del loss
    finally:
        if watch is not None:
            watch.remove()
    return Kept(sum(found.values()), logits[0])
