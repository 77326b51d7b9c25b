"""The committed instruction set: the same on every build, disjoint, and right."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from support.paths import ROOT
from tunelab.starter.build import build_starter
from tunelab.starter.world import MOODS, NUMBER_WORDS, SPLITS, whole_world

DATA = ROOT / "src/tunelab/starter/data"
Record = dict[str, str]


def read(split: str) -> list[Record]:
    return [json.loads(line) for line in (DATA / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Record]]:
    return {split: read(split) for split in SPLITS}


def test_building_again_gives_the_committed_bytes(tmp_path: Path) -> None:
    build_starter(data=tmp_path)
    for split in SPLITS:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (DATA / f"{split}.jsonl").read_bytes()


def test_the_splits_have_their_sizes_and_equally_many_records_of_every_family(splits: dict[str, list[Record]]) -> None:
    assert {split: len(records) for split, records in splits.items()} == {"train": 3200, "validation": 400, "test": 400}
    for records in splits.values():
        families = Counter(record["family"] for record in records)
        assert len(families) >= 8
        assert len(set(families.values())) == 1


def test_every_record_has_the_four_fields_and_no_text_occurs_twice(splits: dict[str, list[Record]]) -> None:
    every = [record for records in splits.values() for record in records]
    assert all(list(record) == ["instruction", "input", "output", "family"] for record in every)
    assert all(value and value == value.strip() for record in every for value in record.values())
    assert len({record["input"] for record in every}) == len(every)


def names_and_values(records: list[Record]) -> set[str]:
    whole = whole_world()
    known = {*whole.people, *whole.places, *whole.things}
    text = "\n".join("\n".join((record["instruction"], record["input"], record["output"])) for record in records)
    return {word for word in re.findall(r"[A-Za-z]+", text) if word in known} | set(re.findall(r"\d+:\d+|\d+", text))


def test_no_name_and_no_value_of_one_split_occurs_in_another(splits: dict[str, list[Record]]) -> None:
    found = {split: names_and_values(records) for split, records in splits.items()}
    assert all(len(words) > 50 for words in found.values())
    for one, other in combinations(SPLITS, 2):
        assert not found[one] & found[other]


# The answers once more, from the text alone, by other means than the generator's.
BOUGHT = (
    r"^(?P<person>\w+) bought a (?P<thing>\w+) in (?P<town>\w+) for (?P<price>\d+) coins$",
    r"^In (?P<town>\w+), (?P<person>\w+) bought a (?P<thing>\w+) for (?P<price>\d+) coins$",
    r"^For (?P<price>\d+) coins, (?P<person>\w+) bought a (?P<thing>\w+) in (?P<town>\w+)$",
)
WENT = (
    r"^(?P<person>\w+) went to (?P<town>\w+) at (?P<time>\d:\d\d)$",
    r"^At (?P<time>\d:\d\d), (?P<person>\w+) went to (?P<town>\w+)$",
)


def facts(text: str, patterns: tuple[str, ...]) -> list[dict[str, str]]:
    found = []
    for sentence in re.split(r"\.(?:\s|$)", text):
        found += [match.groupdict() for pattern in patterns if (match := re.match(pattern, sentence))]
    return found


def only(found: list[dict[str, str]], wanted: str, **known: str) -> str:
    (one,) = [fact for fact in found if all(fact[key] == value for key, value in known.items())]
    return one[wanted]


def entries(text: str) -> list[str]:
    return text.split(": ", 1)[1].rstrip(".").split(", ")


def solve(record: Record) -> str:  # one branch per family is the clearest way to say it
    asked, text, family = record["instruction"], record["input"], record["family"]
    last = asked.rstrip("?.").split()[-1]
    if family == "extract":
        (bought,) = facts(text, BOUGHT)
        key = {"buyer": "person"}.get(last, last)
        return {"thing": "a {}", "price": "{} coins"}.get(key, "{}").format(bought[key])
    if family == "answer":
        went = facts(text, WENT)
        if "who bought" in asked:
            return only(facts(text, BOUGHT), "person", thing=last)
        if "who went" in asked:
            return only(went, "person", town=last)
        if "who left" in asked:
            return only(went, "person", time=last)
        person = asked.split()[2]
        when = " when " in asked
        return ("at " if when else "to ") + only(went, "time" if when else "town", person=person)
    if family == "count":
        return NUMBER_WORDS[text.count(",") + 1]
    if family == "sort":
        return ", ".join(sorted(entries(text), key=NUMBER_WORDS.index, reverse="high to" in asked))
    if family == "mood":
        (feeling,) = [name for name, signs in MOODS.items() if any(sign in text for sign in signs)]
        return feeling
    if family == "rewrite":
        start, joint, end = re.match(r"(.+) (at|in|for) ([\w: ]+)\.$", text).groups()  # type: ignore[union-attr]
        return f"{joint.capitalize()} {end}, {start}."
    if family == "compare":
        most = max if last == "more" else min
        amounts = re.findall(r"paid (\w+ coins?)", text)
        return most(amounts, key=lambda amount: NUMBER_WORDS.index(amount.split()[0]))
    if family == "json":
        (fact,) = facts(text, BOUGHT + WENT)
        keys = asked.rstrip(".").split("with ")[1].split(", ")
        values = {key: fact["person" if key == "name" else key] for key in keys}
        return json.dumps({key: int(value) if key == "price" else value for key, value in values.items()})
    raise AssertionError(f"no solver for {family}")


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_can_be_worked_out_from_the_text(split: str, splits: dict[str, list[Record]]) -> None:
    wrong = [(record, solve(record)) for record in splits[split] if solve(record) != record["output"]]
    assert not wrong


def test_no_answer_class_is_so_frequent_that_guessing_pays(splits: dict[str, list[Record]]) -> None:
    for family in {record["family"] for record in splits["test"]}:
        answers = Counter(record["output"] for record in splits["test"] if record["family"] == family)
        assert max(answers.values()) / sum(answers.values()) < 0.45
