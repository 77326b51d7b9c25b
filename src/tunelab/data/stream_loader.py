"""The loader of a stream: its item is one optimizer step, and it resumes at the very example at which it stopped.

Rows are read in blocks, and the examples of a block are shuffled: a function of the seed and of the number of the
block.  What a checkpoint holds is where the block began and how many of its examples are done, so that nothing of a
buffer is lost.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from tunelab.data.bad_rows import MAX_SKIPPED_SHARE, RowFault
from tunelab.data.batching import shuffled_order
from tunelab.data.data_sources import EncodedBlock
from tunelab.data.examples import Batch, Example, MicroBatch
from tunelab.data.loader import describe_changes, plan_step
from tunelab.data.protocols import Record
from tunelab.data.row_streams import RowStream, StreamPlace
from tunelab.data.token_store import token_fingerprint
from tunelab.errors import ConfigError, DataError
from tunelab.language.translation import translate

ROWS_BEFORE_SHARES: Final = 1000  # rows from which on the share of unusable ones says something
COUNTS: Final = ("rows", "kept", "too_long", "no_target", "unusable", "truncated")


@dataclass(frozen=True, kw_only=True)
class StepPlanner:
    """Lays the examples of a step out for one rank; attributes as the arguments of `BatchLoader`."""

    collate: Callable[[list[Example]], MicroBatch]
    filler: Example
    micro_tokens: int
    packed: bool
    rank: int
    world_size: int
    pass_cost: int | None
    equal_passes: bool

    def batch(self, examples: Sequence[Example]) -> Batch:
        """The share of this rank in a step."""
        plan = plan_step(
            range(len(examples)),
            [example.padded_length(packed=self.packed) for example in examples],
            [example.loss_weight for example in examples],
            micro_tokens=self.micro_tokens,
            packed=self.packed,
            rank=self.rank,
            world_size=self.world_size,
            pass_cost=self.pass_cost,
            equal_passes=self.equal_passes,
        )
        fillers = [self.filler]
        rows = [[examples[index] for index in micro] or fillers for micro in plan.micro_batches] or [fillers]
        return Batch([self.collate(row) for row in rows], plan.loss_weight)


@dataclass
class StreamPosition:
    """Where a stream of examples stands.

    Attributes:
        passes: How often it has come to its end.
        block: Number of the block, over all passes.
        start: Where the block begins.
        passed: Rows of this pass before it.
        done: Examples of it that have been taken.
        content: Fingerprint of its examples.
        counts: Rows before the block, by what became of them.
    """

    passes: int = 0
    block: int = 0
    start: StreamPlace = field(default_factory=dict)
    passed: int = 0
    done: int = 0
    content: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))


def content_fingerprint(block: Sequence[Example]) -> int:
    """A number that differs between any two blocks of examples, by their token ids and by labels and numbers."""
    targets = [
        [float(value) for value in ([one.target] if isinstance(one.target, int) else one.target)]
        for one in block
        if isinstance(one.target, int) or len(one.target) != len(one.ids) or isinstance(one.target[0], float)
    ]
    tokens = token_fingerprint(block)
    if not targets:  # labels of tokens, which are tokens
        return tokens
    return int.from_bytes(blake2b(repr((tokens, targets)).encode(), digest_size=7).digest(), "big")


class StreamLoader:
    """Yields steps of examples from a stream, pass after pass without an end; Lightning takes `steps` for one epoch.

    Every process reads and encodes the whole stream and takes its share of each step, so that steps are the same for
    any number of processes.

    Args:
        stream: The rows.
        encode: The examples of some rows.
        planner: Cuts a step into micro-batches.
        columns: Of the first rows; others were never checked.
        name: The source, for messages.
        steps: Of the run.
        batch_size: Sequences per step, over all ranks.
        seed: Fixes the order.
        shuffle_rows: Rows of a block.
        skip_bad: Whether a few rows that cannot be used are left out.
        limit: Rows of a pass; None takes all.
        report: Takes the counts and the faults of a block after which more rows were dropped.
    """

    def __init__(
        self,
        stream: RowStream,
        encode: Callable[[Sequence[Record]], EncodedBlock],
        planner: StepPlanner,
        *,
        columns: frozenset[str],
        name: str,
        steps: int,
        batch_size: int,
        seed: int,
        shuffle_rows: int,
        skip_bad: bool,
        limit: int | None,
        report: Callable[[Mapping[str, int], Sequence[str]], None],
    ) -> None:
        self.stream, self.encode, self.planner, self.columns, self.name = stream, encode, planner, columns, name
        self.steps, self.batch_size, self.seed, self.shuffle_rows = steps, batch_size, seed, shuffle_rows
        self.skip_bad, self.limit, self.report = skip_bad, limit, report
        self.identity = {"batch_size": batch_size, "seed": seed, "shuffle_rows": shuffle_rows, "limit": limit}
        self.position, self.after = StreamPosition(), StreamPosition()  # of this block, and of the next
        self.reported = 0  # rows dropped when that was last said

    def __len__(self) -> int:
        return self.steps

    @property
    def counts(self) -> dict[str, int]:
        """Rows so far, by what became of them."""
        return {**self.after.counts, "passes": self.position.passes}

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: plain values."""
        return {**vars(self.position), "identity": self.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the examples that are done.

        Raises:
            ConfigError: If other settings would give other steps.
        """
        if changed := describe_changes(state.get("identity", {}), self.identity):
            raise ConfigError(
                translate(
                    "cannot resume: the stream would come in another order than before ({changes}). Restore these "
                    "settings, or start a new run",
                    changes=changed,
                )
            )
        self.position = StreamPosition(**{key: value for key, value in state.items() if key != "identity"})
        self.after = self.position

    def __iter__(self) -> Iterator[Batch]:
        examples = self._examples()
        while True:
            yield self.planner.batch([next(examples) for _ in range(self.batch_size)])

    def _examples(self) -> Iterator[Example]:
        """Examples from the position on."""
        rows = self.stream.rows(self.position.start)
        while True:
            block, ended = self._read_block(rows)
            content = content_fingerprint(block)
            if self.position.done and content != self.position.content:
                raise DataError(
                    translate(
                        "cannot resume: the rows of {name} behind row {row:,} of pass {number} are others than those "
                        "of the checkpoint, so the run would not go on as it began. Put the former data back, or start "
                        "a new run",
                        name=self.name,
                        row=self.position.passed,
                        number=self.position.passes + 1,
                    )
                )
            self.position.content = content
            order = shuffled_order(len(block), seed=self.seed, epoch=self.position.block)
            for place in order[self.position.done :]:
                self.position.done += 1
                yield block[place]
            self.position = self.after
            if ended:
                rows = self.stream.rows({})

    def _read_block(self, rows: Iterator[tuple[int, Record | RowFault]]) -> tuple[list[Example], bool]:
        """The examples of the next block, and whether the pass ends with it; notes where the one after it begins."""
        now, good, numbers, taken = self.position, list[Record](), list[int](), 0
        faults: list[str] = []
        most = self.shuffle_rows if self.limit is None else min(self.shuffle_rows, self.limit - now.passed)
        while taken < most and (entry := next(rows, None)) is not None:
            number, row = entry
            taken += 1
            fault = row.message if isinstance(row, RowFault) else self._strange_column(row)
            if fault is not None:
                faults.append(f"{self.name} {self.stream.unit} {number}: {fault}")
            elif not isinstance(row, RowFault):
                good.append(row)
                numbers.append(number)
        ended = taken < most or now.passed + taken == self.limit
        block = self.encode(good)
        faults += [f"{self.name} {self.stream.unit} {numbers[row]}: {fault}" for row, fault in block.faults]
        more = {
            "rows": taken,
            "kept": block.rows,
            "too_long": block.too_long,
            "no_target": len(good) - block.rows - block.too_long - len(block.faults),
            "unusable": len(faults),
            "truncated": block.tally[0],
        }
        counts = {name: now.counts[name] + more[name] for name in COUNTS}
        self.after = StreamPosition(
            now.passes + ended,
            now.block + 1,
            {} if ended else self.stream.place(),
            0 if ended else now.passed + taken,
            counts=counts,
        )
        self._judge(faults, counts, ended=ended)
        return block.examples, ended

    def _strange_column(self, row: Record) -> str | None:
        """What is wrong with a row that has a column which none of the first rows has; None where it has none."""
        strange = [str(name) for name, value in row.items() if value is not None and name not in self.columns]
        if not strange:
            return None
        return translate(
            "column {names} is in none of the first rows, by which it is told what is read; leave it out: "
            "data.ignore_columns=[{ignored}]",
            names=", ".join(strange),
            ignored=",".join(strange),
        )

    def _judge(self, faults: list[str], counts: Mapping[str, int], *, ended: bool) -> None:
        """Refuse rows that cannot be used, or leave out a few; say what was dropped, each time that it has doubled.

        Raises:
            DataError: Naming them.
        """
        if faults and not self.skip_bad:
            raise DataError.listing(faults)
        rows, unusable = counts["rows"], counts["unusable"]
        if (rows >= ROWS_BEFORE_SHARES or ended) and unusable > MAX_SKIPPED_SHARE * rows:
            stop = translate(
                "{unusable} unusable rows of {rows}, and data.on_bad=skip stops above {share:.0%}",
                unusable=unusable,
                rows=rows,
                share=MAX_SKIPPED_SHARE,
            )
            raise DataError.listing([stop, *faults])
        if ended and not counts["kept"]:
            raise DataError(
                translate("{name}: none of its {rows:,} [row|rows] can be learned from", name=self.name, rows=rows)
            )
        dropped = rows - counts["kept"]
        if dropped > 2 * self.reported:
            self.reported = dropped
            self.report(counts, faults)
