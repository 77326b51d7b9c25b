"""The loader whose item is one optimizer step: sized, sharded without padding, resumable in mid-epoch."""

import math
import signal
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

from torch.utils.data import DataLoader

from tunelab.data.batching import (
    BatchPlan,
    SourceRange,
    epoch_indices,
    longest_first,
    plan_batch,
    shuffled_order,
    split_by_source,
)
from tunelab.data.examples import Batch, Example, MicroBatch
from tunelab.data.lazy_sequences import MappedView
from tunelab.data.token_store import loss_weights_of, padded_lengths, token_fingerprint
from tunelab.errors import ConfigError
from tunelab.language.translation import translate


def ignore_signals(worker: int) -> None:
    """Ignore signals in a loader worker: one sent to the group must not kill it under a main process that
    wants to finish its step.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def plan_step(
    batch: Sequence[int],
    lengths: Sequence[int],
    loss_weights: Sequence[float],
    *,
    micro_tokens: int,
    packed: bool,
    rank: int,
    world_size: int,
    pass_cost: int | None,
    equal_passes: bool,
    ranges: Sequence[SourceRange] = (),
) -> BatchPlan:
    """The share of one rank in a step; arguments as of `BatchLoader`.

    Args:
        ranges: Sources that have micro-batches of their own.
    """

    def plan_of(rank: int) -> BatchPlan:
        plan = plan_batch(
            batch,
            lengths,
            loss_weights,
            micro_tokens=micro_tokens,
            packed=packed,
            rank=rank,
            world_size=world_size,
            pass_cost=pass_cost,
        )
        return plan._replace(micro_batches=split_by_source(plan.micro_batches, ranges)) if ranges else plan

    plan = plan_of(rank)
    if not equal_passes:
        return plan
    passes = max(len(plan_of(other).micro_batches) for other in range(world_size))
    fillers: list[list[int]] = [[] for _ in range(passes - len(plan.micro_batches))]
    return plan._replace(micro_batches=[*plan.micro_batches, *fillers])


def describe_changes(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Each value that is another than before, in words; empty where none is."""
    return translate("; ").join(
        translate("{key} was {before}, is now {now}", key=key, before=before.get(key), now=value)
        for key, value in now.items()
        if before.get(key) != value
    )


class BatchLoader:
    """Yields the steps of an epoch for one rank.  The order is a function of seed and epoch, nothing else.

    Args:
        examples: All examples of the split, the same on every rank.
        collate: Lays examples out as one micro-batch.
        filler: An example that teaches nothing, for a rank that has no row in a step: it must still take part
            in the gradient sync.
        batch_size: Sequences per step, over all ranks.
        micro_tokens: Most tokens of one forward pass on one rank, pads counted.
        packed: Whether `collate` packs rows.
        seed: With the epoch it fixes the order.
        shuffle: False for evaluation: rows run by length, so that next to nothing is padding.
        source_ranges: With several sources, where the examples of each stand and how often an epoch sees them.
            Evaluation ignores the weights and keeps sources in micro-batches of their own.
        workers: Processes that lay out batches ahead of time; 0 does it in the main process.
        rank: This process among the `world_size`.
        world_size: Processes that share each step.
        pass_cost: Pads that take as long as one pass more, see `split_micro_batches`.
        equal_passes: Whether every rank gets as many micro-batches in a step; a rank with fewer of its own is given
            the filler.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        collate: Callable[[list[Example]], MicroBatch],
        filler: Example,
        batch_size: int,
        micro_tokens: int,
        packed: bool = False,
        seed: int = 0,
        shuffle: bool = True,
        source_ranges: Sequence[SourceRange] = (),
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pass_cost: int | None = None,
        equal_passes: bool = False,
    ) -> None:
        self.equal_passes = equal_passes and world_size > 1
        self.examples, self.collate, self.filler = examples, collate, filler
        self.lengths, self.loss_weights = padded_lengths(examples, packed=packed), loss_weights_of(examples)
        self.batch_size, self.micro_tokens, self.packed = batch_size, micro_tokens, packed
        self.pass_cost = pass_cost
        self.source_ranges = list(source_ranges) or [SourceRange("", 0, len(examples))]
        self.rows_per_epoch = sum(part.rows_per_epoch for part in self.source_ranges) if shuffle else len(examples)
        self.seed, self.shuffle, self.workers, self.rank, self.world_size = seed, shuffle, workers, rank, world_size
        # Lightning looks for set_epoch at `sampler`, and reads `batch_sampler` wherever it finds the first
        self.sampler, self.batch_sampler = self, None
        self.epoch = self.batches_done = self.batches_to_skip = 0
        self.identity = {
            "examples": len(examples),
            "tokens": sum(self.lengths),
            "content": token_fingerprint(examples),
            "batch_size": batch_size,
            "seed": seed,
        }

    def __len__(self) -> int:
        return math.ceil(self.rows_per_epoch / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """The position in the epoch; an epoch's end is the next one's start."""
        return {"done": self.batches_done % len(self), **self.identity}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the steps already done.

        Raises:
            ConfigError: If the data or the batches changed since: the order would no longer be the same.
        """
        if changed := describe_changes(state, self.identity):
            raise ConfigError(
                translate(
                    "cannot resume: the training data or its order changed since the checkpoint "
                    "({names}). Restore them, or start a new run",
                    names=changed,
                )
            )
        self.batches_to_skip = state["done"]

    def _order(self) -> "array[int]":
        if self.shuffle:
            places = epoch_indices(self.source_ranges, seed=self.seed, epoch=self.epoch)
            return array("q", (places[i] for i in shuffled_order(len(places), seed=self.seed, epoch=self.epoch)))
        parts = (longest_first(range(part.start, part.stop), self.lengths) for part in self.source_ranges)
        return array("q", chain.from_iterable(parts))

    def first_epoch_plans(self) -> list[BatchPlan]:
        """The steps of the first epoch, whatever has been seen of it."""
        order = self._order()
        return [self._plan(order, start) for start in range(0, len(order), self.batch_size)]

    def _plan(self, order: "array[int]", start: int) -> BatchPlan:
        return plan_step(
            order[start : start + self.batch_size],
            self.lengths,
            self.loss_weights,
            micro_tokens=self.micro_tokens,
            packed=self.packed,
            rank=self.rank,
            world_size=self.world_size,
            pass_cost=self.pass_cost,
            equal_passes=self.equal_passes,
            ranges=() if self.shuffle else self.source_ranges,
        )

    def _collate_batch(self, plan: BatchPlan) -> Batch:  # runs in the workers
        fillers = [self.filler]
        rows = [[self.examples[index] for index in micro] or fillers for micro in plan.micro_batches] or [fillers]
        return Batch([self.collate(row) for row in rows], plan.loss_weight)

    def __iter__(self) -> Iterator[Batch]:
        # a generator: nothing below runs before the first next(), when set_epoch and load_state_dict have been called
        order, self.batches_done, self.batches_to_skip = self._order(), self.batches_to_skip, 0
        starts = range(self.batches_done * self.batch_size, len(order), self.batch_size)
        plans: MappedView[BatchPlan] = MappedView(partial(self._plan, order), starts)  # made when their turn comes
        steps: DataLoader[Batch] = DataLoader(
            plans,  # type: ignore[arg-type]  # a sequence is a map-style data set
            batch_size=None,
            collate_fn=self._collate_batch,  # type: ignore[arg-type]  # without a batch size it is given one plan
            num_workers=self.workers,
            worker_init_fn=ignore_signals,
        )
        for step in steps:
            self.batches_done += 1
            yield step
