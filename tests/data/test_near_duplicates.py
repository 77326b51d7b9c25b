"""Near duplicates are those that counting every pair finds, and none that it does not."""

import random
import re
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import Buffer

from tunelab.data import near_duplicates as subject
from tunelab.data.memory_map import ScratchDir
from tunelab.data.near_duplicates import (
    SignedTexts,
    SimilarPair,
    find_closest,
    lsh_bands,
    near_duplicate_clusters,
    split_words,
    write_whole,
)


def find_near_duplicates(known: list[str], asked: list[str], *, threshold: float) -> tuple[list[SimilarPair], int]:
    """For each text asked for, the known one most like it, and how many had too many candidates."""
    rows = range(len(known) + len(asked))
    return find_closest(SignedTexts([*known, *asked]), rows[: len(known)], rows[len(known) :], threshold=threshold)


def triples(text: str) -> set[tuple[str, ...]]:
    """Word triples of a text, counted the slow way."""
    found = split_words(text)
    padded = found + [""] * (3 - len(found))
    return set(zip(padded, padded[1:], padded[2:], strict=False))


def jaccard(one: str, other: str) -> float:
    left, right = triples(one), triples(other)
    return len(left & right) / len(left | right)


def edited(text: str, changes: int, draw: random.Random) -> str:
    parts = text.split()
    for place in draw.sample(range(len(parts)), min(changes, len(parts))):
        parts[place] = f"other{draw.randint(0, 9)}"
    return " ".join(parts)


def corpus(seed: int, rows: int) -> tuple[list[str], list[str]]:
    """Known texts of 5 to 40 words, and asked ones: each a known one with none to four words changed, or a new one."""
    draw = random.Random(seed)
    vocabulary = [f"word{place}" for place in range(300)]
    known = [" ".join(draw.choices(vocabulary, k=draw.randint(5, 40))) for _ in range(rows)]
    asked = [edited(draw.choice(known), draw.randint(0, 4), draw) for _ in range(rows // 2)]
    return known, asked + [" ".join(draw.choices(vocabulary, k=20)) for _ in range(rows // 4)]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_every_pair_that_brute_force_finds_is_found_with_its_likeness(threshold: float) -> None:
    known, asked = corpus(1, 200)
    best = {place: max(jaccard(text, other) for other in known) for place, text in enumerate(asked)}

    found, crowded = find_near_duplicates(known, asked, threshold=threshold)

    assert {one.query: pytest.approx(one.similarity) for one in found} == {
        place: likeness for place, likeness in best.items() if likeness >= threshold
    }
    assert 0 < len(found) < len(asked)
    assert crowded == 0
    for one in found:
        assert jaccard(known[one.reference], asked[one.query]) == pytest.approx(one.similarity)


short_texts = st.lists(st.sampled_from(["a", "b", "c", "雨", "海", "x y"]), min_size=0, max_size=9).map(" ".join)


@given(st.lists(short_texts, max_size=8), st.lists(short_texts, max_size=8), st.sampled_from([0.3, 0.6, 0.9]))
def test_what_is_reported_is_never_less_alike_than_asked(known: list[str], asked: list[str], threshold: float) -> None:
    found, _ = find_near_duplicates(known, asked, threshold=threshold)

    for one in found:
        true = jaccard(known[one.reference], asked[one.query])
        assert true >= threshold
        assert one.similarity == pytest.approx(true)
    # equal sets have equal signatures, so these can never be missed
    equal = {place for place, text in enumerate(asked) if any(triples(text) == triples(other) for other in known)}
    assert equal == {one.query for one in found if one.similarity == 1}


def test_the_answer_is_the_same_every_time_and_for_other_company() -> None:
    known, asked = corpus(2, 80)
    alone = [find_near_duplicates(known, [text], threshold=0.5)[0] for text in asked]

    together = find_near_duplicates(known, asked, threshold=0.5)[0]

    assert together == find_near_duplicates(known, asked, threshold=0.5)[0]
    assert [(one.reference, one.similarity) for one in together] == [
        (a[0].reference, a[0].similarity) for a in alone if a
    ]


def test_chinese_is_compared_by_characters() -> None:
    known = ["请帮我找一家评分是四分以上的餐馆，谢谢您。", "北京广电国际酒店的价格贵吗"]
    asked = ["请帮我找一家评分是五分以上的餐馆，谢谢您", "明天下雨吗"]

    found, _ = find_near_duplicates(known, asked, threshold=0.6)

    assert [(one.query, one.reference) for one in found] == [(0, 0)]
    assert found[0].similarity == pytest.approx(14 / 20)  # 17 triples each, three of them with the changed character


def test_case_width_and_punctuation_make_no_difference_but_words_do() -> None:
    known = ["Call me at 9:30, Anna.", "到了"]

    found, _ = find_near_duplicates(
        known, ["ｃａｌｌ me — at 9 30 ANNA", "Call me at 9:45, Anna.", "到"], threshold=0.7
    )

    assert [(one.query, one.reference, one.similarity) for one in found] == [(0, 0, 1.0)]


def test_texts_without_a_word_are_told_apart_by_their_signs() -> None:
    found, _ = find_near_duplicates(["!!!", ":-)", ""], ["???", ":-)", ""], threshold=0.8)

    assert [(one.query, one.reference) for one in found] == [(1, 1), (2, 2)]


def test_a_crowd_of_lookalikes_is_told_rather_than_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_CANDIDATES", 3)
    same = "one two three four five six seven"

    found, crowded = find_near_duplicates([same] * 5, [same, "nothing of the kind"], threshold=0.8)

    assert [(one.query, one.reference) for one in found] == [(0, 0)]
    assert crowded == 1


def hold_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every bound on what is held at once so small that each is met many times."""
    for bound, value in (
        ("TEXTS_AT_ONCE", 7),
        ("CHARACTERS_AT_ONCE", 200),
        ("WORDS_KNOWN", 20),
        ("SHINGLES_PER_BLOCK", 7),
        ("MAX_SHINGLES_IN_SETS", 30),
        ("PAIRS_AT_ONCE", 5),
        ("QUERIES_AT_ONCE", 3),
    ):
        monkeypatch.setattr(subject, bound, value)


@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_texts_in_many_blocks_are_compared_as_in_one(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    known, asked = corpus(3, 60)
    whole = find_near_duplicates(known, asked, threshold=threshold)
    clusters = near_duplicate_clusters(known + asked, threshold=threshold)
    hold_little(monkeypatch)

    assert find_near_duplicates(known, asked, threshold=threshold) == whole
    assert near_duplicate_clusters(known + asked, threshold=threshold) == clusters


def test_shingles_on_disk_give_what_those_in_memory_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, asked = corpus(4, 60)
    texts = [*known, "", *asked]
    whole = SignedTexts(texts)
    hold_little(monkeypatch)

    on_disk = SignedTexts(texts, ScratchDir(tmp_path))

    assert np.array_equal(on_disk.signatures, whole.signatures)
    assert [on_disk.shingles(text) for text in range(len(texts))] == [whole.shingles(i) for i in range(len(texts))]


def test_many_near_copies_are_compared_without_holding_the_shingles_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_SHINGLES_IN_SETS", 500)
    draw = random.Random(5)
    vocabulary = [f"word{place}" for place in range(300)]
    originals = [" ".join(draw.choices(vocabulary, k=40)) for _ in range(20)]
    copies = [edited(draw.choice(originals), 1, draw) for _ in range(400)]
    signed = SignedTexts(copies)
    held = []
    jaccard = signed.jaccard
    monkeypatch.setattr(
        signed, "jaccard", lambda one, other: held.append(sum(map(len, signed._sets.values()))) or jaccard(one, other)
    )

    found, _ = find_closest(signed, range(300), range(300, 400), threshold=0.7)

    best = {place: max(jaccard(row, 300 + place) for row in range(300)) for place in range(100)}
    assert {one.query: one.similarity for one in found} == {p: best[p] for p in best if best[p] >= 0.7}
    assert len(held) > 1000
    assert max(held) < 600 < sum(len(signed.shingles(text)) for text in range(400))


def test_bands_get_longer_with_the_threshold_and_miss_no_more_than_promised() -> None:
    cuts = [lsh_bands(threshold / 100) for threshold in range(30, 101, 5)]

    for (_, short), (_, long) in pairwise(cuts):
        assert short <= long
    for threshold, (count, length) in zip(range(30, 101, 5), cuts, strict=True):
        assert count * length <= subject.HASH_FUNCTIONS
        assert (1 - (threshold / 100) ** length) ** count <= subject.MAX_MISS_PROBABILITY


def test_unspaced_scripts_are_cut_into_letters() -> None:
    assert split_words("ฝน rain 雨がふる") == [*"ฝน", "rain", *"雨がふる"]
    assert not re.search("[A-Z]", "".join(split_words("RAIN Straße")))


def test_what_a_nearly_full_disk_takes_in_parts_is_written_whole() -> None:
    class Reluctant(BytesIO):
        def write(self, data: Buffer, /) -> int:
            return super().write(memoryview(data)[:3])

    file = Reluctant()

    write_whole(file, b"0123456789", None)

    assert file.getvalue() == b"0123456789"
