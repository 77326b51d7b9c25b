"""The settings of a mix, and the rows that an epoch takes of each source."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tiny_runs import settings
from tunelab.config.cross_checks import mixture_faults
from tunelab.config.schema import InstructionDataConfig, SplitConfig, source_name_from_file
from tunelab.data.batching import SourceRange, epoch_indices, shuffled_order, source_ranges, split_by_source
from tunelab.data.formats import format_columns, keep_columns, rename_columns
from tunelab.data.mixture import list_sources
from tunelab.errors import ConfigError, DataError

DATA = InstructionDataConfig(split=SplitConfig(validation=0.1, test=0.1))


@given(rows=st.integers(1, 200), weight=st.floats(0.01, 5), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_a_weight_is_how_often_an_epoch_sees_each_row(rows: int, weight: float, seed: int, epoch: int) -> None:
    # Given a source with a weight between two others
    portions = [SourceRange("a", 0, 3), SourceRange("b", 3, 3 + rows, weight), SourceRange("c", 3 + rows, 5 + rows)]
    if not portions[1].rows_per_epoch:
        return

    counts = Counter(epoch_indices(portions, seed=seed, epoch=epoch))

    # Then its rows make up the weight exactly, and none is seen more than once more often than another
    own = [counts[place] for place in range(3, 3 + rows)]
    assert sum(own) == portions[1].rows_per_epoch == int(rows * weight + 0.5)
    assert max(own) - min(own) <= 1
    assert all(counts[place] == 1 for place in (0, 1, 2, 3 + rows, 4 + rows))


def test_a_share_is_drawn_afresh_each_epoch_and_the_same_each_time() -> None:
    portions = [SourceRange("a", 0, 40, 0.5)]
    epochs = [epoch_indices(portions, seed=1, epoch=epoch) for epoch in range(20)]

    assert epochs == [epoch_indices(portions, seed=1, epoch=epoch) for epoch in range(20)]
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert {place for epoch in epochs for place in epoch} == set(range(40))  # no row is left out for good
    assert epoch_indices(portions, seed=2, epoch=0) != epochs[0]


def test_two_sources_of_one_size_do_not_draw_the_same_rows() -> None:
    places = epoch_indices([SourceRange("a", 0, 40, 0.5), SourceRange("b", 40, 80, 0.5)], seed=1, epoch=0)

    assert [place - 40 for place in places[20:]] != places[:20]


def test_a_weight_of_one_is_the_plain_concatenation() -> None:
    assert list(epoch_indices([SourceRange("a", 0, 7), SourceRange("b", 7, 19)], seed=3, epoch=4)) == list(range(19))
    assert sorted(shuffled_order(19, seed=3, epoch=4)) == list(range(19))


def test_portions_lie_where_the_examples_of_each_source_stand() -> None:
    found = source_ranges(["a", "a", "c"], {"a": 2.0, "b": 5.0, "c": 0.5})

    assert found == [SourceRange("a", 0, 2, 2.0), SourceRange("c", 2, 3, 0.5)]
    assert [portion.rows_per_epoch for portion in found] == [4, 1]


def test_a_weight_that_draws_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"0\.01 of the 3 examples of a is less than half an example"):
        source_ranges(["a"] * 3, {"a": 0.01})


def test_micro_batches_are_cut_where_sources_meet() -> None:
    portions = [SourceRange("a", 0, 3), SourceRange("b", 3, 6)]

    assert split_by_source([[5, 2, 4, 0], [1], [3]], portions) == [[2, 0], [5, 4], [1], [3]]
    assert split_by_source([[5, 2, 4, 0]], [SourceRange("", 0, 6)]) == [[5, 2, 4, 0]]


def test_files_in_a_list_are_named_after_themselves() -> None:
    found = list_sources(replace(DATA, mix=["texts/my code.jsonl", "owner/name:train[:10%]"]))

    assert [(source.name, source.weight, source.data.train) for source in found] == [
        ("my_code", 1.0, "texts/my code.jsonl"),
        ("owner_name_train[_10%]", 1.0, "owner/name:train[:10%]"),
    ]
    assert source_name_from_file("a.b/plain.csv") == "plain"


def test_a_source_takes_what_it_does_not_say_from_the_data_block() -> None:
    entry = {"train": "a.csv", "encoding": "gb18030", "split": {"test": 0.3}, "weight": 2, "columns": {"prompt": "q"}}
    (a, b) = list_sources(replace(DATA, mix={"a": entry, "b": "b.csv"}, format="text"))

    assert (a.data.encoding, b.data.encoding) == ("gb18030", "utf-8")
    assert (a.data.split, b.data.split) == (SplitConfig(validation=0.1, test=0.3), DATA.split)
    assert (a.weight, a.columns, a.format) == (2.0, {"prompt": "q"}, "text")
    assert list_sources(replace(DATA, train="x.csv"))[0].name == ""


def test_every_fault_of_a_mix_is_told_at_once() -> None:
    mix = "{a: {tarin: a.csv, weight: 0}, b/c: {train: b.csv, weight: much}, d: 3, e: {train: e.csv, columns: x}}"
    with pytest.raises(ConfigError) as told:
        settings("data=instruction", "data.train=x.jsonl", "data.validation=v.jsonl", f"data.mix={mix}", "lr=-1")

    for part in (
        "data.mix is set and so is data.train=x.jsonl, data.validation=v.jsonl",
        "set data.train=null data.validation=null",
        "data.mix.a.tarin is no setting; did you mean 'train'?",
        "data.mix.a.train is not set",
        "data.mix.a.weight=0 is out of range",
        "data.mix.b/c: a name becomes part of val/NAME/loss",
        "data.mix.b/c.weight=much is not a number",
        "data.mix.d=3 is no source",
        "data.mix.e.columns=x is no mapping",
        "lr=-1",
    ):
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("mix", "message"),
    [("[]", "names no sources"), ("x.jsonl", "names no sources"), ("{}", "names no sources"),
     ("[a/x.csv,b/x.csv]", "names x twice"), ("[{train: a.csv}]", "a list holds files")],
)  # fmt: skip
def test_a_mix_of_another_shape_is_refused(mix: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings("data=instruction", f"data.mix={mix}")


def test_without_files_both_ways_out_are_needed_once() -> None:
    assert mixture_faults(InstructionDataConfig()) != []
    assert mixture_faults(InstructionDataConfig(train="a.csv")) == []
    assert settings("data=instruction", "data.mix=[a.jsonl,b.jsonl]").data.train is None


def test_columns_of_a_source_go_by_the_names_of_the_run() -> None:
    row = {"question": "2+2?", "answers": {"text": ["4"]}, "prompt": "unrelated", "id": 7}

    assert rename_columns(row, {"prompt": "question", "completion": "answers.text.0"}) == {
        "answers": {"text": ["4"]}, "id": 7, "prompt": "2+2?", "completion": "4",
    }  # fmt: skip
    assert rename_columns({"id": 7}, {"prompt": "question"}) == {"id": 7}  # the task tells what is missing, and where


def test_a_row_shows_only_the_format_of_its_source() -> None:
    row = {"text": "all of it", "instruction": "a", "output": "b", "id": 3, "score": 1}

    assert keep_columns(row, format_columns("text", list(row), {})) == {"text": "all of it", "id": 3}
    assert keep_columns(row, format_columns("auto", list(row), {})) == {"instruction": "a", "output": "b", "id": 3}
    assert keep_columns({"q": "x", "completion": "y"}, format_columns("prompt_completion", [], {"prompt": "q"})) == {
        "q": "x", "completion": "y",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="format=txt"):
        format_columns("txt", [], {})
