"""Examples on disk are equal to those that were written."""

import pickle
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelab.data.examples import IGNORE, Example
from tunelab.data.loader import BatchLoader
from tunelab.data.memory_map import ScratchDir
from tunelab.data.token_store import (
    TokenStore,
    TokenWriter,
    loss_weights_of,
    padded_lengths,
    row_indices,
    token_fingerprint,
)
from tunelab.tasks.instruction import Instruction

TOKENS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Any example of any task."""
    ids = draw(TOKENS)
    masked = [token if draw(st.booleans()) else IGNORE for token in ids]
    target = draw(
        st.sampled_from([masked, list(ids)])
        | st.lists(st.integers(0, 1), min_size=1, max_size=5)
        | st.lists(FINITE, min_size=1, max_size=3)
        | st.lists(st.integers(-(2**31), 2**31), min_size=len(ids), max_size=len(ids))
        | st.integers(0, 1000)
    )
    second = draw(st.none() | st.integers(0, len(ids)))
    reference = draw(st.none() | st.tuples(FINITE, FINITE))
    return Example(
        ids, target, draw(st.floats(0, 1e6)), draw(st.integers(-1, 2**40)), second, reference, draw(st.booleans())
    )


def stored(found: list[Example], folder: Path) -> TokenStore:
    writer = TokenWriter(ScratchDir(folder))
    for example in found:
        writer.append(example)
    return writer.finish()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(examples(), max_size=8))
def test_any_examples_come_back_as_they_were(found: list[Example], tmp_path: Path) -> None:
    store = stored(found, tmp_path)

    assert list(store) == found
    assert [type(example.target) for example in store] == [type(example.target) for example in found]
    for packed in (True, False):
        assert list(padded_lengths(store, packed=packed)) == [example.padded_length(packed=packed) for example in found]
    assert list(loss_weights_of(store)) == [example.loss_weight for example in found]
    assert list(row_indices(store)) == [example.row for example in found]
    assert token_fingerprint(store) == token_fingerprint(found)
    assert list(pickle.loads(pickle.dumps(store))) == found


def test_every_field_of_an_example_is_kept(tmp_path: Path) -> None:
    # a field that the store does not know would be lost in silence: whoever adds one must look here
    assert [field.name for field in fields(Example)] == [
        "ids",
        "target",
        "loss_weight",
        "row",
        "second_start",
        "reference_logprobs",
        "predicts",
    ]


def test_a_changed_token_or_a_moved_border_changes_the_fingerprint() -> None:
    base = [Example([1, 2, 3], 0, 1, 0), Example([4], 0, 1, 1)]

    for other in ([[1, 2, 9], [4]], [[9, 2, 3], [4]], [[1, 2], [3, 4]], [[1, 2, 3], [4], []]):
        assert token_fingerprint([Example(ids, 0, 1, i) for i, ids in enumerate(other)]) != token_fingerprint(base)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_steps_from_disk(workers: int, tmp_path: Path) -> None:
    task = Instruction()
    found = [Example([*range(1, i % 7 + 3)], [IGNORE, *range(2, i % 7 + 3)], i % 7 + 1, i) for i in range(50)]
    lists, disks = (
        list(
            BatchLoader(
                source,
                collate=task.collate,
                filler=task.padding_example(),
                batch_size=8,
                micro_tokens=30,
                workers=workers,
            )
        )
        for source in (found, stored(found, tmp_path))
    )

    for one, other in zip(lists, disks, strict=True):
        assert one.loss_weight == other.loss_weight
        for left, right in zip(one.micro_batches, other.micro_batches, strict=True):
            assert all((a is None and b is None) or a.equal(b) for a, b in zip(left, right, strict=True))
