"""Large files, read and encoded in parts on every core, give what one pass over them gives."""

import json
import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from support.template_families import TEMPLATES, family_tokenizer
from support.tiny_runs import settings
from tunelab.data import data_sources, line_reader, parallel
from tunelab.data.conversation import Conversation
from tunelab.data.examples import IGNORE, Example
from tunelab.data.exchanges import Exchange, ExchangeColumns, ExchangeFrame, TokenMark
from tunelab.data.formats import detect_format, to_conversation
from tunelab.data.memory_map import ScratchDir
from tunelab.data.parallel import map_parts
from tunelab.data.readers import read_records
from tunelab.data.template_texts import writes_texts_untouched
from tunelab.data.text_parts import FlatIds
from tunelab.data.text_store import TextWriter
from tunelab.data.token_store import TokenBlock, TokenWriter, encode_target, input_hashes, store_examples
from tunelab.data.truncation import count_supervised
from tunelab.data.unknown_tokens import input_ids
from tunelab.errors import ConfigError, DataError, TuneLabError
from tunelab.models.load_model import load_tokenizer
from tunelab.tasks.instruction import Instruction
from tunelab.training.components import build_task

LINES = [
    '{"a": "plain", "b": 1}', '{"a" : "blank before a colon"}', '{"a": 1, "a": 2}', '{"a" :1,"a":2}',
    '{"a": "quote \\": in a text"}', '{"a": {"a": 1, "a": 2}}', '{"a": {"b": []}}', '{"a": NaN}', '{"a": 1e999}',
    '{"a": 99999999999999999999}',
    '{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"a": "北京 \u2028 é"}', "", "  ",
    "\ufeff{}", "{}", "[]", "7", '{"a": 1} x', '{"a": "cut',
    ' {"a": "led by a blank"} \r', '{"a": "\t"}', '{"a\\"": "key"}',
]  # fmt: skip


def outcome(file: Path, **how: Any) -> Any:
    """What a reader gives, or its complaint."""
    try:
        found = read_records(str(file), **how)
    except TuneLabError as fault:
        return str(fault)
    return list(found.rows), list(found.lines), found.skipped, [found.location(i) for i in range(len(found.rows))]


@pytest.mark.parametrize("on_bad", ["error", "skip"])
@pytest.mark.parametrize("part_bytes", [1, 40, 2**22])
def test_any_mixture_of_lines_reads_as_the_strict_parser_reads_it(
    tmp_path: Path, on_bad: str, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_reader, "PART_BYTES", part_bytes)
    draw, file = random.Random(0), tmp_path / "odd.jsonl"
    for trial in range(40):
        ends = draw.choice(["\n", "\r\n"])
        lines = [line for line in draw.choices(LINES, k=3) for _ in range(draw.choice([1, 2]))]
        padding = ['{"a": "good"}'] * (300 if trial % 2 else 0)  # a few bad lines among many may be left out
        text = ends.join([*lines, *padding]) + ends * (trial % 3)
        file.write_bytes((b"\xef\xbb\xbf" if trial % 4 == 0 else b"") + text.encode())
        assert outcome(file, on_bad=on_bad, in_memory=0) == outcome(file, on_bad=on_bad)


def test_bytes_that_are_no_text_are_named_alike(tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"a": "x"}\n' * 200 + b'{"a": "caf\xe9"}\n')

    for on_bad in ("error", "skip"):
        assert outcome(file, on_bad=on_bad, in_memory=0) == outcome(file, on_bad=on_bad)


def test_texts_come_back_from_the_store_in_any_order_and_whatever_they_hold(tmp_path: Path) -> None:
    texts = ["", "a\0b", "\0", "北京", "x" * 5000, "\udce9", *map(str, range(500))]
    writer = TextWriter(ScratchDir(tmp_path))
    for text in texts:
        writer.append(text)
    stored = writer.finish()

    assert list(stored) == texts
    for indices in ([5, 0, 3], [499, 7, 7], range(10, 60, 7), range(400, 500), []):
        assert stored.take(indices) == [texts[index] for index in indices]


def work(number: int) -> tuple[int, bool]:
    """A result, and whether it was made in a process forked from the one of the tests."""
    if number == 13:
        raise DataError("part 13")
    return number * number, True


def test_parts_come_in_order_and_a_fault_comes_in_its_turn() -> None:
    results = map_parts(work, range(20), workers=3)

    assert [next(results)[0] for _ in range(13)] == [number * number for number in range(13)]
    with pytest.raises(DataError, match="part 13"):
        next(results)


def test_the_part_of_a_process_that_was_killed_is_done_here() -> None:
    parent = os.getpid()

    def fragile(number: int) -> int:
        if number == 2 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return number + 1

    assert list(map_parts(fragile, range(6), workers=2)) == [1, 2, 3, 4, 5, 6]


def test_one_core_or_other_threads_leave_the_work_to_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert parallel.worker_count() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr("threading.active_count", lambda: 2)
    assert parallel.worker_count() == 1


UNTOUCHED = [
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}{% endfor %}",
    "{% set first = messages[0].content if messages and messages[0].role == 'system' else '' %}{{ first }}",
    "{% for m in messages[1:] %}{% if m.content %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
    "{% for m in messages %}{{ m.get('content').strip() }}{{ '\n' if not loop.last }}{% endfor %}",
]
LOOKED_INTO = [
    "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    "{% for m in messages %}{% if '</think>' in m.content %}{{ m.content[8:] }}{% endif %}{% endfor %}",
    "{% for m in messages %}{% set c = m.content %}{% if c == 'x' %}y{% endif %}{% endfor %}",
    "{{ messages | tojson }}",
    "{% for m in messages %}{{ m }}{% endfor %}",
    "{% for m in messages %}{{ m.content | length }}{% endfor %}",
    "{% macro shout(t) %}{{ t | upper }}{% endmacro %}{% for m in messages %}{{ shout(m.content) }}{% endfor %}",
    "{% for m in messages %}{{ m.content.strip('abc') }}{% endfor %}",
    "{% for m in messages %}{{ m['con' + 'tent'] | upper }}{% endfor %}",
    "{% set n = namespace(t='') %}{% for m in messages %}{% set n.t = m.content %}{% endfor %}{{ n.t | upper }}",
    "{% for m in messages | reverse %}{{ m.content | upper }}{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.content | upper }}{% endfor %}",
    "{% for m in messages %}{% set t = m.content and 'y' %}{{ t | upper }}{% endfor %}",
]


@pytest.mark.parametrize("source", UNTOUCHED)
def test_a_template_that_only_puts_texts_in_their_places_is_known_as_such(source: str) -> None:
    assert writes_texts_untouched(source)


@pytest.mark.parametrize("source", LOOKED_INTO)
def test_a_template_that_looks_into_a_text_is_never_taken_for_one_that_does_not(source: str) -> None:
    assert not writes_texts_untouched(source)


def odd_records() -> list[dict[str, Any]]:
    """Instructions with all that templates and tokenizers trip over."""
    words = "red blue green gold grey pink teal plum".split()
    records: list[dict[str, Any]] = []
    for i in range(120):
        record: dict[str, Any] = {"instruction": f"say {words[i % 8]} {i}", "output": " ".join(words[: i % 7 + 1])}
        changes: list[dict[str, Any]] = [
            {}, {"output": "café 北京 \u2028"}, {"instruction": f"  padded \n {i} "}, {"output": "</s> <|end|> ends"},
            {"input": "more / [context]"}, {"output": "..."}, {"system": "brief"}, {"output": ""}, {"output": 7},
            {"history": [["hi", "ho"], ["a", "b"]]}, {"output": "x" * 900}, {"output": "<think>hm</think> so"},
            {"output": "Zqv00000kx"},
        ]  # fmt: skip
        records.append(record | changes[i % len(changes)])
    return records


@pytest.mark.parametrize("template", ["auto", "chatml", "plain", "alpaca", "llama3"])
def test_records_encoded_together_are_those_encoded_one_by_one(template: str) -> None:
    run = settings("data=instruction", "data.train=x.jsonl", f"data.template={template}", "data.max_tokens=200")
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(run.model)
    alone, together = build_task(run), build_task(run)
    for task in (alone, together):
        task.fit([{"instruction": "a", "output": "b"}])
        task.set_tokenizer(tokenizer, 200)
    alone.template._writer.texts_untouched = False  # type: ignore[attr-defined]  # each record is rendered
    alone.template._plain.borders = {}  # type: ignore[attr-defined]  # each prefix is encoded

    def one_by_one(record: dict[str, Any], row: int) -> Any:
        try:
            return alone.encode_all(record, row)
        except DataError as fault:
            return str(fault)

    records = odd_records()
    expected = [one_by_one(record, row) for row, record in enumerate(records)]
    for time in (1, 2, 3):  # at first frames of exchanges are not known yet
        given = [str(out) if isinstance(out, DataError) else out for out in together.encode_many(records, 0)]
        assert given == expected
        assert together.tally() == tuple(time * count for count in alone.tally())
    assert together.template._writer.texts_untouched  # type: ignore[attr-defined]


def record_task(tokenizer: PreTrainedTokenizerBase, **how: Any) -> Instruction:
    """A task whose template has seen so many records that it knows frames."""
    task = Instruction(**how)
    task.set_tokenizer(tokenizer, None)
    list(task.encode_many([{"instruction": f"ask {i}", "output": f"say {i} times"} for i in range(40)], 0))
    return task


@pytest.mark.parametrize("name", TEMPLATES)
def test_exchanges_of_todays_templates_are_labelled_as_each_is_by_itself(name: str) -> None:
    tokenizer = family_tokenizer(name)
    try:
        task = record_task(tokenizer, template_date="2026-11-28")
    except ConfigError:
        pytest.skip("this template cannot be learned from")
    records = [record for record in odd_records() if set(record) == {"instruction", "output"}] * 2

    def one_by_one(record: dict[str, Any], row: int) -> Any:
        try:
            return task.encode_all(record, row)
        except DataError as fault:
            return str(fault)

    expected = [one_by_one(record, row) for row, record in enumerate(records)]
    assert [str(out) if isinstance(out, DataError) else out for out in task.encode_many(records, 0)] == expected


@pytest.mark.parametrize("name", ["auto", "chatml", "llama3", "plain", "alpaca"])
def test_frames_are_known_for_the_templates_that_come_along(name: str) -> None:
    task = record_task(load_tokenizer(settings("data=instruction", "data.train=x.jsonl").model), template=name)
    known = task.template._exchange_frame("answers")  # type: ignore[attr-defined]
    if name in ("plain", "alpaca"):
        assert known is None, "no token parts their questions from their answers"
        return
    assert known is not None
    if name == "auto":
        assert known.fill(Exchange("what?", "this")) == "<|begin|><|user|>what?<|end|><|assistant|>this<|end|>"
    for odd in (Exchange("what?", "<|end|>"), Exchange(" what?", "this"), Exchange("/no_think", "this")):
        assert known.fill(odd) is None


@pytest.mark.parametrize("format", ["auto", "alpaca", "prompt_completion"])
@pytest.mark.parametrize("renamed", [{}, {"prompt": "question"}, {"output": "say"}, {"input": "note"}])
def test_an_exchange_is_read_as_the_conversation_that_it_is(format: str, renamed: dict[str, str]) -> None:
    values: list[Any] = ["a question", "", " ", None, 7, "two\nlines", [], ["x"], 0]
    names = ["instruction", "output", "response", "input", "context", "system", "history", "choices", "label",
             "prompt", "completion", "question", "say", "note", "id"]  # fmt: skip
    draw, exchanges = random.Random(0), 0
    for _ in range(2000):
        record = {name: draw.choice(values[: draw.choice([1, 9])]) for name in draw.sample(names, draw.randrange(2, 7))}
        columns = ExchangeColumns.of(list(record), format, renamed)
        exchange = None if columns is None else columns.read(record)
        if exchange is not None:
            known = detect_format(list(record), renamed) if format == "auto" else format
            read = to_conversation(record, known, renamed)
            assert isinstance(read, Conversation) and read.messages == exchange.conversation().messages
            assert read.tools is None and read.meta.get("choices") is None and read.meta.get("label") is None
            exchanges += 1
    assert exchanges > 5 or renamed


def examples_of_every_kind() -> list[Example]:
    """Examples with every kind of target, of uneven length."""
    draw, examples = random.Random(1), list[Example]()
    for row in range(60):
        ids = [draw.randrange(50) for _ in range(draw.randrange(1, 20))]
        labels = [token if draw.random() < 0.5 else IGNORE for token in ids]
        second = len(ids) // 2 if row % 4 == 0 and len(ids) > 1 else None
        examples.append(Example(ids, labels, 1, row, second_start=second))
    return examples


def test_examples_stored_together_are_those_stored_one_by_one(tmp_path: Path) -> None:
    masked = examples_of_every_kind()
    others = [
        Example([1, 2], 3, 1.5, 0),
        Example([4], [0.5, 0.25], 1, 1),
        Example([4, 5], [1, 0], 1, 2, predicts=False),
    ]
    classes = [Example([1, 2, row], row, 1.5, row) for row in range(9)]
    for examples in (masked, others, [*masked, *others], [masked[0]], classes, [*classes, *others], []):
        stored = store_examples(examples, ScratchDir(tmp_path))
        assert list(stored) == examples
        block = TokenBlock.of(examples)
        kinds = [encode_target(example, np.array(example.ids, np.int32))[0] for example in examples]
        assert block.rows["kind"].tolist() == kinds


def test_two_examples_have_one_hash_exactly_where_the_model_is_given_the_same(tmp_path: Path) -> None:
    examples = [*examples_of_every_kind(), *examples_of_every_kind()[:20], Example([3, 4], 1, 1.0, 0)]
    texts = [tuple(input_ids(example)) for example in examples]
    for hashes in (input_hashes(examples), input_hashes(store_examples(examples, ScratchDir(tmp_path)))):
        first = {text: number for text, number in zip(texts, hashes.tolist(), strict=True)}
        assert [first[text] for text in texts] == hashes.tolist()
        assert len(set(first.values())) == len(first)


def test_blocks_of_rows_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl"
    good = [record for record in odd_records() if record["output"] not in ("", 7)]
    file.write_text("".join(json.dumps(record) + "\n" for record in [*good, *good[:9]]), encoding="utf-8")
    found = []
    for in_memory, block in ((64, 4096), (0, 7), (0, 4096)):
        monkeypatch.setattr(data_sources, "BLOCK_ROWS", block)
        run = settings(
            "data=instruction", f"data.train={file}", f"data.in_memory={in_memory}", "data.keep_prepared=false"
        )
        sources = data_sources.read_splits(run.data, build_task(run), seed=3)
        splits = {name: (list(split.rows), list(split.locations)) for name, split in sources.splits.items()}
        found.append((splits, sources.notes, list(sources.duplicates), sources.columns))
    assert found[0] == found[1] == found[2]


def task_with_limit(name: str, limit: int | None, **how: Any) -> Instruction | None:
    """A task whose template has seen many exchanges; None where it cannot be learned from."""
    try:
        task = record_task(family_tokenizer(name), template_date="2026-11-28", **how)
    except ConfigError:
        return None
    task.limit = limit
    return task


@pytest.mark.parametrize("limit", [None, 30, 12])
@pytest.mark.parametrize("name", TEMPLATES)
def test_exchanges_stored_together_are_those_encoded_one_by_one(name: str, limit: int | None, tmp_path: Path) -> None:
    # Given records of which most are plain exchanges, and others that are longer, spell tokens or cannot be used
    plain = [{"instruction": f"say it {i} times", "output": f"so be it, {i}"} for i in range(52)]
    records = [record for pair in zip(odd_records()[:52], plain, strict=True) for record in pair]
    for too_long in ("drop", "truncate_prompt") if limit else ("drop",):
        alone, together = (task_with_limit(name, limit, too_long=too_long) for _ in range(2))
        if alone is None or together is None:
            pytest.skip("this template cannot be learned from")

        # When they are encoded as objects, and as they are stored
        kept = data_sources.encode_block(records, 7, task=alone, to_store=False)
        stored = data_sources.encode_block(records, 7, task=together, to_store=True)

        # Then all is the same
        writer = TokenWriter(ScratchDir(tmp_path))
        writer.extend(stored.stored)
        assert list(writer.finish()) == kept.examples
        assert stored[2:] == kept[2:]
        if together.template._exchange_frame("answers") and limit is None:  # type: ignore[attr-defined]
            exchanges = together.plain_exchanges(records)
            assert exchanges is not None and len(exchanges.rows) >= 52


def test_a_frame_labels_many_texts_as_each_by_itself() -> None:
    draw, found = random.Random(0), 0
    for trial in range(900):
        tail = [draw.randrange(3) for _ in range(trial % 3)]
        start = TokenMark(1, draw.choice([1, 2]), draw.choice([1, 2, 2]), tail)
        end = draw.choice([None, TokenMark(2, 1, 1, [])])
        nothing = re.compile("(?!)")
        frame = ExchangeFrame(("", "", ""), start, end, {2, 3}, draw.choice([None, 0]), nothing, nothing)
        texts = [[draw.randrange(5) for _ in range(draw.randrange(9))] for _ in range(8)]
        flat = FlatIds(np.array(sum(texts, []), np.int32), np.array(list(map(len, texts))).cumsum())  # noqa: RUF017
        if start.number > start.total or not len(flat.ids):
            continue

        many = frame.label_many(np.arange(len(texts)), flat)

        alone = {row: labelled for row, ids in enumerate(texts) if (labelled := frame.label(ids))}
        assert many.rows.tolist() == list(alone)
        block = TokenBlock.of_exchanges(many)
        same = TokenBlock.of([Example(*alone[row], count_supervised(alone[row][1]), row) for row in alone])
        assert all(np.array_equal(one, other) for one, other in zip(block[:3], same[:3], strict=True))
        assert block.rows.tobytes() == same.rows.tobytes()
        assert many.supervised().tolist() == same.rows["units"].tolist()
        found += len(alone)
    assert found > 100


def test_two_blocks_become_one_in_the_order_of_rows() -> None:
    examples = [Example(list(range(row + 1)), [IGNORE] * row + [row], 1.0, row) for row in range(40)]
    examples += [Example([1, 2], [0.5, 0.25, 0.125], 1, row) for row in range(40, 50)]
    examples += [Example([3] * 9, 1, 1, row) for row in range(50, 60)]
    for trial in range(20):
        order = random.Random(trial).sample(examples, 60)
        parts = [sorted(part, key=lambda example: example.row) for part in (order[:trial], order[trial:])]

        merged = TokenBlock.of(parts[0]).beside(TokenBlock.of(parts[1]))

        whole = TokenBlock.of(examples)
        assert all(np.array_equal(one, other) for one, other in zip(merged[:3], whole[:3], strict=True))
        assert merged.rows.tobytes() == whole.rows.tobytes()
