"""Encoded examples of a large split: token ids, labels and weights in memory-mapped files."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, islice
from operator import ne
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tunelab.data.examples import IGNORE, Example
from tunelab.data.exchanges import LabelledExchanges
from tunelab.data.lazy_sequences import LazySequence
from tunelab.data.memory_map import MemoryMap, ScratchDir
from tunelab.data.near_duplicates import splitmix64

# How the target of an example is kept.
TARGET_MASKED: Final = 0  # token labels, each the id or IGNORE: one bit each
TARGET_INTEGERS: Final = 1  # a list of whole numbers
TARGET_FLOATS: Final = 2  # a list of numbers
TARGET_INTEGER: Final = 3  # one whole number
ROW_DTYPE: Final = np.dtype(
    [
        ("start", np.int64), ("length", np.int64), ("mask", np.int64), ("others", np.int64), ("other", np.int64),
        ("kind", np.int64), ("units", np.float64), ("row", np.int64), ("second", np.int64),
        ("chosen", np.float64), ("rejected", np.float64), ("predicts", np.int64),
    ]
)  # fmt: skip
NO_SECOND: Final = -1  # in `second`; nan in the two references
EXAMPLES_AT_ONCE: Final = 1024  # stored together
HASH_CHUNK: Final = 2**20  # token ids hashed at once


class TokenStore(LazySequence[Example]):
    """Examples on disk; each access makes a fresh one, equal to the one that was written.

    Args:
        ids: int32 token ids of all examples, end to end.
        label_mask: Labels of kind `TARGET_MASKED`, packed, each example from a byte of its own.
        other_targets: float64 targets of all other kinds, end to end.
        rows: One `ROW_DTYPE` for each example.
    """

    def __init__(self, ids: MemoryMap, bits: MemoryMap, others: MemoryMap, rows: MemoryMap) -> None:
        self.files = (ids, bits, others, rows)
        self.ids: npt.NDArray[np.int32] = np.frombuffer(ids.view(), np.int32)
        self.label_mask: npt.NDArray[np.uint8] = np.frombuffer(bits.view(), np.uint8)
        self.other_targets: npt.NDArray[np.float64] = np.frombuffer(others.view(), np.float64)
        self.rows: npt.NDArray[Any] = np.frombuffer(rows.view(), ROW_DTYPE)

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, place: int) -> Example:
        for file in self.files:
            file.count_access()
        start, length, mask, others, other, kind, units, row, second, *rest = self.rows[place].item()
        chosen, rejected, predicts = rest
        ids = self.ids[start : start + length]
        values = self.other_targets[others : others + other].tolist()
        target: list[int] | list[float] | int
        if kind == TARGET_MASKED:
            learned = np.unpackbits(self.label_mask[mask : mask + (length + 7) // 8], count=length)
            target = np.where(learned, ids, IGNORE).tolist()
        elif kind == TARGET_FLOATS:
            target = values
        else:
            target = [int(value) for value in values] if kind == TARGET_INTEGERS else int(values[0])
        reference = None if chosen != chosen else (chosen, rejected)
        second_start = None if second == NO_SECOND else second
        return Example(ids.tolist(), target, units, row, second_start, reference, bool(predicts))

    def column(self, name: str) -> npt.NDArray[Any]:
        """One field of the rows, copied; the pages of all others, which were read along, are handed back."""
        values = self.rows[name].copy()
        self.files[-1].release_pages()
        return values

    def padded_lengths(self, *, packed: bool) -> "array[int]":
        """`Example.padded_length` of each."""
        length, second = self.column("length"), self.column("second")
        padded = np.where(second == NO_SECOND, length, 2 * np.maximum(second, length - second))
        return array("q", (length if packed else padded).tobytes())

    def sequence_lengths(self) -> "array[int]":
        """`Example.max_sequence_length` of each."""
        length, second = self.column("length"), self.column("second")
        return array("q", np.where(second == NO_SECOND, length, np.maximum(second, length - second)).tobytes())

    def loss_weights(self) -> "array[float]":
        """`Example.loss_weight` of each."""
        return array("d", self.column("units").tobytes())

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStore, self.files


class TokenBlock(NamedTuple):
    """Examples as they are stored: the arguments of `TokenStore`, of these examples alone."""

    ids: npt.NDArray[np.int32]
    bits: npt.NDArray[np.uint8]
    others: npt.NDArray[np.float64]
    rows: npt.NDArray[Any]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Self:
        """Examples as they are stored."""
        lengths = np.fromiter((len(example.ids) for example in examples), np.int64, len(examples))
        ids = np.fromiter(chain.from_iterable(example.ids for example in examples), np.int32, int(lengths.sum()))
        rows = np.zeros(len(examples), ROW_DTYPE)
        rows["length"], rows["start"] = lengths, lengths.cumsum() - lengths
        rows["units"] = [example.loss_weight for example in examples]
        rows["row"] = [example.row for example in examples]
        rows["second"] = [NO_SECOND if example.second_start is None else example.second_start for example in examples]
        nothing = (float("nan"), float("nan"))
        references = [example.reference_logprobs or nothing for example in examples]
        rows["chosen"], rows["rejected"] = np.array(references, np.float64).reshape(-1, 2).T
        rows["predicts"] = [example.predicts for example in examples]
        if examples and all(type(example.target) is int for example in examples):
            rows["kind"], rows["other"], rows["others"] = TARGET_INTEGER, 1, np.arange(len(examples))
            return cls(ids, np.empty(0, np.uint8), np.array([example.target for example in examples], np.float64), rows)
        bits = pack_masks(examples, ids, lengths)
        others = np.empty(0, np.float64)
        if bits is None:
            stored = [encode_target(example, np.array(example.ids, np.int32)) for example in examples]
            bits = np.concatenate([bit for _, bit, _ in stored])
            others = np.concatenate([other for _, _, other in stored])
            rows["kind"] = [kind for kind, _, _ in stored]
            mask_bytes = np.array([len(bit) for _, bit, _ in stored], np.int64)
            rows["other"] = [len(other) for _, _, other in stored]
        else:
            mask_bytes = (lengths + 7) // 8
        rows["mask"], rows["others"] = np.cumsum(mask_bytes) - mask_bytes, rows["other"].cumsum() - rows["other"]
        return cls(ids, bits, others, rows)

    @classmethod
    def of_exchanges(cls, exchanges: LabelledExchanges) -> Self:
        """Exchanges as they are stored; the row of each is that among the records at hand."""
        (ids, ends), lengths = exchanges.flat, np.diff(exchanges.flat.ends, prepend=0)
        places = np.arange(len(ids))
        learned = (places >= np.repeat(exchanges.starts, lengths)) & (places < np.repeat(exchanges.stops, lengths))
        rows = np.zeros(len(lengths), ROW_DTYPE)
        rows["start"], rows["length"], rows["row"] = ends - lengths, lengths, exchanges.rows
        sizes = (lengths + 7) // 8
        rows["mask"], rows["units"], rows["predicts"] = sizes.cumsum() - sizes, exchanges.supervised(), True
        rows["second"], rows["chosen"], rows["rejected"] = NO_SECOND, np.nan, np.nan
        return cls(ids, pack_learned(learned, lengths), np.empty(0, np.float64), rows)

    def beside(self, other: "TokenBlock") -> "TokenBlock":
        """The examples of two blocks in the order of their rows."""
        if not len(other.rows) or not len(self.rows):
            return self if len(self.rows) else other
        rows = np.concatenate([self.rows, other.rows])
        shifted = rows[len(self.rows) :]
        for name, part in (("start", self.ids), ("mask", self.bits), ("others", self.others)):
            shifted[name] += len(part)
        rows = rows[np.argsort(rows["row"], kind="stable")]

        def ordered(name: str, own: npt.NDArray[Any], more: npt.NDArray[Any], size: npt.NDArray[Any]) -> Any:
            begins = size.cumsum() - size
            taken = np.arange(int(size.sum())) + np.repeat(rows[name] - begins, size)
            rows[name] = begins
            return np.concatenate([own, more])[taken]

        return TokenBlock(
            ordered("start", self.ids, other.ids, rows["length"]),
            ordered("mask", self.bits, other.bits, (rows["length"] + 7) // 8 * (rows["kind"] == TARGET_MASKED)),
            ordered("others", self.others, other.others, rows["other"]),
            rows,
        )


def pack_masks(
    examples: Sequence[Example], ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8] | None:
    """The bits of examples all of which are of kind `TARGET_MASKED`; None where one is not."""
    targets = [example.target for example in examples if isinstance(example.target, list)]
    if len(targets) < len(examples) or any(map(ne, map(len, targets), lengths.tolist())):
        return None
    if not set(map(type, chain.from_iterable(targets))) <= {int}:
        return None
    labels = np.fromiter(chain.from_iterable(targets), np.int64, len(ids))
    learned = labels != IGNORE
    return None if bool(((labels != ids) & learned).any()) else pack_learned(learned, lengths)


def pack_learned(learned: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Whether each id is learned, as bits; those of each example begin with a byte of their own."""
    sizes = (lengths + 7) // 8
    shift = 8 * (sizes.cumsum() - sizes) - (lengths.cumsum() - lengths)
    spaced = np.zeros(8 * int(sizes.sum()), bool)
    spaced[np.arange(len(learned)) + np.repeat(shift, lengths)] = learned
    return np.packbits(spaced)


class TokenWriter:
    """Takes examples and leaves them as a store.

    Args:
        scratch: Where the files are made.
    """

    def __init__(self, scratch: ScratchDir) -> None:
        self.scratch = scratch
        self.files = scratch.open_files("tokens", ("ids", "bits", "others", "rows"))
        self.paths = [Path(file.name) for file in self.files]
        self.sizes = [0, 0, 0]

    def append(self, example: Example) -> None:
        """Keep one example."""
        self.extend(TokenBlock.of([example]))

    def extend(self, block: "TokenBlock") -> None:
        """Keep many examples."""
        rows = block.rows.copy()
        for name, size in zip(("start", "mask", "others"), self.sizes, strict=True):
            rows[name] += size
        try:
            parts: tuple[npt.NDArray[Any], ...] = (block.ids, block.bits, block.others, rows)
            for file, part in zip(self.files, parts, strict=True):
                file.write(part.tobytes())
        except OSError as fault:
            raise self.scratch.write_error(fault) from fault
        grown = (len(block.ids), len(block.bits), len(block.others))
        self.sizes = [size + more for size, more in zip(self.sizes, grown, strict=True)]

    def finish(self) -> TokenStore:
        """The examples, once all are there."""
        try:
            for file in self.files:
                file.close()
        except OSError as fault:
            raise self.scratch.write_error(fault) from fault
        return TokenStore(*(MemoryMap(path, self.scratch) for path in self.paths))


def encode_target(
    example: Example, ids: npt.NDArray[np.int32]
) -> tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """The target of an example as it is stored: kind, bits, other numbers."""
    no_bits, no_others = np.empty(0, np.uint8), np.empty(0, np.float64)
    target = example.target
    if isinstance(target, int):
        return TARGET_INTEGER, no_bits, np.array([target], np.float64)
    values = np.array(target)
    whole = values.dtype.kind == "i"
    if whole and len(values) == len(ids):
        learned = values != IGNORE
        if bool(((values == ids) | ~learned).all()):
            return TARGET_MASKED, np.packbits(learned), no_others
    return TARGET_INTEGERS if whole else TARGET_FLOATS, no_bits, values.astype(np.float64)


def store_examples(examples: Iterable[Example], scratch: ScratchDir) -> TokenStore:
    """Examples on disk."""
    writer, rest = TokenWriter(scratch), iter(examples)
    while block := list(islice(rest, EXAMPLES_AT_ONCE)):
        writer.extend(TokenBlock.of(block))
    return writer.finish()


def map_examples(change: Callable[[Example, int], Example], examples: Sequence[Example]) -> Sequence[Example]:
    """`change` of each example and its place: a list of a list, a store of a store."""
    changed = (change(example, place) for place, example in enumerate(examples))
    if isinstance(examples, TokenStore):
        return store_examples(changed, examples.files[0].scratch or ScratchDir())
    return list(changed)


def padded_lengths(examples: Sequence[Example], *, packed: bool) -> Sequence[int]:
    """Tokens that each example takes up, without reading the tokens of a store."""
    return (
        examples.padded_lengths(packed=packed)
        if isinstance(examples, TokenStore)
        else [e.padded_length(packed=packed) for e in examples]
    )


def loss_weights_of(examples: Sequence[Example]) -> Sequence[float]:
    """Loss weight of each example, without reading the tokens of a store."""
    return (
        examples.loss_weights() if isinstance(examples, TokenStore) else [example.loss_weight for example in examples]
    )


def row_indices(examples: Sequence[Example]) -> Sequence[int]:
    """The record behind each example, without reading the tokens of a store."""
    if isinstance(examples, TokenStore):
        return array("q", examples.column("row").tobytes())
    return [example.row for example in examples]


def sequence_lengths(examples: Sequence[Example]) -> Sequence[int]:
    """Tokens of the longest sequence of each example, without reading the tokens of a store."""
    return (
        examples.sequence_lengths()
        if isinstance(examples, TokenStore)
        else [example.max_sequence_length for example in examples]
    )


class TokenStretch(NamedTuple):
    """The tokens of examples in a row, end to end.

    Attributes:
        ids: Token ids.
        learned: Whether a loss is taken on each; nothing is learned of examples whose target is no list of labels.
        rows: One `ROW_DTYPE` for each example.
        starts: Where each example starts in `ids`.
    """

    ids: npt.NDArray[np.int32]
    learned: npt.NDArray[np.bool_]
    rows: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]


def token_stretches(examples: Sequence[Example]) -> Iterator[TokenStretch]:
    """The tokens of all examples, some thousand examples at a time."""
    for first in range(0, len(examples), EXAMPLES_AT_ONCE * 8):
        last = min(first + EXAMPLES_AT_ONCE * 8, len(examples))
        if isinstance(examples, TokenStore):
            rows, store = examples.rows[first:last], examples
            begin, end = int(rows["start"][0]), int(rows["start"][-1] + rows["length"][-1])
            block = TokenBlock(store.ids[begin:end], store.label_mask, store.other_targets, rows)
        else:
            block = TokenBlock.of([examples[place] for place in range(first, last)])
            rows, begin = block.rows, 0
        lengths, masked = rows["length"], rows["kind"] == TARGET_MASKED
        learned = np.zeros(len(block.ids), bool)
        if masked.any():
            sizes = (lengths + 7) // 8 * masked
            kept = block.bits[int(rows["mask"][0]) : int(rows["mask"][-1] + sizes[-1])]
            spaced = np.unpackbits(kept).view(bool)
            shift = 8 * (sizes.cumsum() - sizes) - (lengths.cumsum() - lengths)
            places = np.arange(len(block.ids)) + np.repeat(shift, lengths)
            of_masked = np.repeat(masked, lengths)
            learned[of_masked] = spaced[places[of_masked]]
        yield TokenStretch(block.ids, learned, rows, rows["start"] - begin)
        if isinstance(examples, TokenStore):
            for file in examples.files:
                file.release_pages()


def input_hashes(examples: Sequence[Example]) -> npt.NDArray[np.uint64]:
    """64 bits for each example, equal where `unknown_tokens.input_ids` of two are equal."""
    parts = [np.empty(0, np.uint64)]
    for ids, learned, rows, starts in token_stretches(examples):
        lengths, second = rows["length"], rows["second"]
        place = np.arange(len(ids)) - np.repeat(starts, lengths)
        ends = np.where(second == NO_SECOND, lengths, second)
        taught = learned & (place < np.repeat(ends, lengths))
        last_learned = np.maximum.reduceat(np.where(taught, place, -1), starts)
        before = ~taught & (place < np.repeat(last_learned, lengths))
        counts = np.maximum.reduceat(np.where(before, place, -1), starts) + 1
        counts = np.where(counts == 0, ends, counts)
        mixed = splitmix64(ids.astype(np.uint64) ^ splitmix64(place.astype(np.uint64)))
        mixed[place >= np.repeat(counts, lengths)] = 0
        parts.append(splitmix64(np.add.reduceat(mixed, starts) + counts.astype(np.uint64)))
    return np.concatenate(parts)


def token_fingerprint(examples: Sequence[Example]) -> int:
    """A number that differs between any two sequences of token ids; a list and a store of the same give the same."""
    digest = blake2b(digest_size=7)
    if isinstance(examples, TokenStore):
        for start in range(0, len(examples.ids), HASH_CHUNK):
            digest.update(examples.ids[start : start + HASH_CHUNK].tobytes())
            examples.files[0].release_pages()
        digest.update(examples.column("length").tobytes())
    else:
        for example in examples:
            digest.update(np.array(example.ids, np.int32).tobytes())
        digest.update(np.array([len(example.ids) for example in examples], np.int64).tobytes())
    return int.from_bytes(digest.digest(), "big")
