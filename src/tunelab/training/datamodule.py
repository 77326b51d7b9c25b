"""The splits as loaders: batches for training, rows in order of length for evaluation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
from typing_extensions import override

from tunelab.data.batching import SourceRange
from tunelab.data.examples import Example
from tunelab.data.loader import BatchLoader
from tunelab.data.stream_loader import StepPlanner, StreamLoader
from tunelab.tasks.base import Task
from tunelab.training.processes import row_share


class BatchDataModule(L.LightningDataModule):
    """Hands Lightning one loader per split.

    Args:
        examples: Examples of each split: `train`, `validation`, `test`; an evaluation split may be empty.
        task: Lays examples out.
        batch_size: Sequences per optimizer step, over all ranks.
        eval_batch_size: Sequences per evaluation step, over all ranks; no score depends on it.
        micro_tokens: Most tokens of one forward pass on one rank.
        seed: Fixes the order of every epoch.
        packed: Whether the model takes packed rows.
        workers: Loader processes per rank.
        source_ranges: With several sources, where the examples of each stand in a split.
        pass_cost: Pads that take as long as one pass more; None where a pass costs more than any pads.
        open_stream: Gives the loader of a stream, from which training takes its rows in place of the examples of
            `train`, which are then the first of them; None without a stream.

    Attributes:
        stream: That loader, once training has begun.
    """

    def __init__(
        self,
        examples: Mapping[str, Sequence[Example]],
        task: Task,
        *,
        batch_size: int,
        eval_batch_size: int,
        micro_tokens: int,
        seed: int,
        packed: bool,
        workers: int,
        source_ranges: Mapping[str, Sequence[SourceRange]] | None = None,
        pass_cost: int | None = None,
        open_stream: Callable[[StepPlanner], StreamLoader] | None = None,
    ) -> None:
        super().__init__()
        self.open_stream = open_stream
        self.stream: StreamLoader | None = None
        self.stream_state: dict[str, Any] = {}  # where the stream stood when the checkpoint was written
        self.source_ranges = source_ranges or {}
        self.examples, self.task = examples, task
        self.sizes = {"train": batch_size, "validation": eval_batch_size, "test": eval_batch_size}
        self.micro_tokens, self.seed, self.packed, self.workers = micro_tokens, seed, packed, workers
        self.pass_cost = pass_cost

    def loader(self, split: str) -> BatchLoader:
        """The loader of one split for this rank."""
        share = row_share(self.trainer)
        return BatchLoader(
            self.examples[split],
            collate=self.task.collate,
            filler=self.task.padding_example(),
            batch_size=self.sizes[split],
            micro_tokens=self.micro_tokens,
            packed=self.packed,
            seed=self.seed,
            shuffle=split == "train",
            source_ranges=self.source_ranges.get(split, ()),
            workers=self.workers,
            rank=share.rank,
            world_size=share.size,
            pass_cost=self.pass_cost,
            equal_passes=self.needs_equal_passes,
        )

    @property
    def needs_equal_passes(self) -> bool:
        """Whether every rank must run as many passes in a step."""
        return self.trainer is not None and getattr(self.trainer.strategy, "needs_equal_passes", False)

    @override
    def train_dataloader(self) -> BatchLoader | StreamLoader:
        if self.open_stream is None:
            return self.loader("train")
        share = row_share(self.trainer)
        self.stream = self.open_stream(
            StepPlanner(
                collate=self.task.collate,
                filler=self.task.padding_example(),
                micro_tokens=self.micro_tokens,
                packed=self.packed,
                rank=share.rank,
                world_size=share.size,
                pass_cost=self.pass_cost,
                equal_passes=self.needs_equal_passes and share.size > 1,
            )
        )
        if self.stream_state:
            self.stream.load_state_dict(self.stream_state)
        return self.stream

    # a stream does not begin anew with an epoch, so its place is kept here: of a run that ended with one, Lightning
    # does not restore its loaders
    @override
    def state_dict(self) -> dict[str, Any]:
        return {} if self.stream is None else {"stream": self.stream.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stream_state = state_dict.get("stream", {})

    @override
    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self.loader("validation") if self.examples["validation"] else []

    @override
    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self.loader("test") if self.examples["test"] else []
