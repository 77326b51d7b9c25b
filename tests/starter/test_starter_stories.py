"""The pre-training text: plain prose, the same every time, and without the instruction set's texts."""

import json
from itertools import islice
from pathlib import Path

from tunelab.starter.bpe_tokenizer import ROLE_TOKENS
from tunelab.starter.build import SEED, build_starter
from tunelab.starter.corpora import draw_documents, draw_instructions
from tunelab.starter.world import whole_world


def sample(seed: int, count: int = 2000) -> list[str]:
    return list(draw_documents(whole_world(), seed=seed, count=count))


def test_the_same_seed_writes_the_same_stories() -> None:
    assert sample(3, 200) == sample(3, 200)
    assert sample(3, 200) != sample(4, 200)


def test_a_longer_text_begins_with_the_shorter_one() -> None:
    assert sample(SEED, 300)[:100] == sample(SEED, 100)


def test_no_chat_mark_and_no_instruction_stands_in_the_stories() -> None:
    text = "\n".join(sample(SEED))
    instructions = {record["instruction"] for record in draw_instructions(SEED)["train"]}
    assert not [mark for mark in ROLE_TOKENS if mark in text]
    assert not [instruction for instruction in instructions if instruction in text]


def test_a_forbidden_text_is_never_told_as_an_exercise() -> None:
    record = {"input": "The list: Mara, Bela."}
    forbidden = {*(text.split("\n\n")[1] for text in sample(SEED) if text.startswith("This is about")), record["input"]}
    assert forbidden
    told = draw_documents(whole_world(), seed=SEED, count=2000, forbidden=forbidden)
    assert not [text for text in told if text.startswith("This is about") and text.split("\n\n")[1] in forbidden]


def test_every_name_and_value_of_the_world_occurs() -> None:
    whole, text = whole_world(), "\n".join(sample(SEED))
    wanted = [*whole.people, *whole.places, *whole.things, *whole.times, *map(str, whole.prices)]
    assert not [word for word in wanted if word not in text]


def test_the_text_files_hold_one_text_a_line(tmp_path: Path) -> None:
    build_starter(texts=tmp_path)
    with (tmp_path / "world.jsonl").open(encoding="utf-8") as file:
        records = [json.loads(line) for line in islice(file, 50)]
    assert all(list(record) == ["text"] and record["text"] for record in records)
    held_back = {json.loads(line)["text"] for line in (tmp_path / "world_validation.jsonl").open(encoding="utf-8")}
    assert len(held_back) >= 300
