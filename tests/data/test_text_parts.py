"""Texts encoded by their parts: the ids of the whole texts, for every tokenizer that is taken for one that cuts so."""

import random
from collections.abc import Callable
from sys import getsizeof
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from support.paths import ROOT
from tunelab.config.schema import PretrainedModelConfig
from tunelab.data import text_parts
from tunelab.data.text_parts import CUTTING_PATTERNS, PartEncoder, space_cut_before, stands_alone, text_batches
from tunelab.models.load_model import load_tokenizer
from tunelab.tasks.base import Task
from tunelab.tasks.classification import Classification
from tunelab.tasks.instruction import Instruction

GPT2, GPT4, QWEN, STARTER = CUTTING_PATTERNS
BORDERS = ("<|user|>", "<|end|>")
CORPUS = [
    "The cat isn't here, it's 12:45 and he'll say: who's there? I'M the 1st of 3,000,000 cats.",
    "def f(x):\n    return  x ** 2  # naïve café, Ünïcödé\r\n\tA  B   C",
    "北京的天气 怎么样？ today 今天 a 下雨 b。 Über straße İstanbul ﬁne ﬀ ① ½ x² é é",
] * 4


def words_by(*steps: Any) -> Any:
    """A pre-tokenizer of some steps."""
    return pre_tokenizers.Sequence([*steps]) if len(steps) > 1 else steps[0]


def split(pattern: str) -> Any:
    """A step that parts words by a pattern."""
    return pre_tokenizers.Split(Regex(pattern), "isolated")


BYTES = {"add_prefix_space": False, "use_regex": False}
PRE_TOKENIZERS = {
    "GPT-2": words_by(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "GPT-2 with a space before": words_by(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "GPT-4": words_by(split(GPT4), pre_tokenizers.ByteLevel(**BYTES)),
    "Qwen": words_by(split(QWEN), pre_tokenizers.ByteLevel(**BYTES)),
    "starter": words_by(split(STARTER), pre_tokenizers.ByteLevel(**BYTES)),
    "digits alone": words_by(pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "BERT": words_by(pre_tokenizers.BertPreTokenizer()),
    "words": words_by(pre_tokenizers.Whitespace()),
    "words and punctuation": words_by(pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()),
    "underscores always": words_by(pre_tokenizers.Metaspace(prepend_scheme="always")),
    "underscores first": words_by(pre_tokenizers.Metaspace(prepend_scheme="first")),
    "underscores never": words_by(pre_tokenizers.Metaspace(prepend_scheme="never")),
}
NORMALIZERS = {
    "none": None,
    "NFKC": normalizers.NFKC(),
    "BERT": normalizers.BertNormalizer(),
    "several": normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]),
}


def tokenizer(pre_tokenizer: Any, normalizer: Any = None, kind: str = "BPE", *added: AddedToken) -> Tokenizer:
    """A small tokenizer."""
    made: dict[str, tuple[Any, Any]] = {
        "BPE": (models.BPE(unk_token="<unk>", fuse_unk=True), trainers.BpeTrainer),
        "WordPiece": (models.WordPiece(unk_token="<unk>", max_input_chars_per_word=20), trainers.WordPieceTrainer),
        "Unigram": (models.Unigram(), trainers.UnigramTrainer),
    }
    model, trainer = made[kind]
    whole = Tokenizer(model)
    whole.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        whole.normalizer = normalizer
    options = {"unk_token": "<unk>"} if kind == "Unigram" else {}
    whole.train_from_iterator(CORPUS, trainer(vocab_size=180, special_tokens=["<unk>"], show_progress=False, **options))
    whole.add_special_tokens([AddedToken(border, normalized=False) for border in BORDERS])
    whole.add_tokens([*added])
    return whole


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of every kind of letter and space, short words often, control tokens among them."""
    draw = random.Random(seed)
    letters = [*"abcXY ZI  'sstm.,:;?!\"()-12345\n\t\r_<|>\u00a0\u3000\u0301éßİﬁ①北京。👍\u200d\x1c\x85\u2028"]
    words = [
        "the",
        "cat",
        "it's",
        "I'M",
        "x",
        "A",
        "7",
        "12:45",
        "123456",
        "",
        " ",
        "<|user|>",
        "<|end|>",
        "<|use",
        "foo",
    ]
    words += [
        "naïve",
        "北京",
        "e\u0301",
        "\u0301",
        "a.b",
        "don't",
        "<mask>",
        "Foo",
        "...",
        "\n",
        "end|>",
        "zz",
        "q" * 30,
    ]
    made = []
    for _ in range(count):
        parts = draw.choices(words, k=draw.randrange(12))
        parts += ["".join(draw.choices(letters, k=draw.randrange(4))) for _ in range(draw.randrange(8))]
        draw.shuffle(parts)
        made.append("".join(part + draw.choice(["", " ", " ", " "]) for part in parts))
    return made


def whole_ids(core: Tokenizer, some: list[str]) -> list[list[int]]:
    """The ids of texts as the tokenizer gives them."""
    return [encoding.ids for encoding in core.encode_batch(some, add_special_tokens=False)]


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("pre_tokenizer", PRE_TOKENIZERS)
def test_the_ids_of_parts_end_to_end_are_those_of_the_text(pre_tokenizer: str, normalizer: str) -> None:
    core = tokenizer(PRE_TOKENIZERS[pre_tokenizer], NORMALIZERS[normalizer])
    encoder = PartEncoder.of(core, BORDERS)
    assert encoder is not None and encoder.borders == BORDERS

    some = texts(600)

    assert encoder.ids(some) == whole_ids(core, some)
    assert encoder.ids(some[:50]) == whole_ids(core, some[:50])  # of parts that are known


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram"])
def test_models_that_see_one_word_at_a_time_are_all_alike(kind: str) -> None:
    for pre_tokenizer in ("BERT", "words", "underscores first"):
        core = tokenizer(PRE_TOKENIZERS[pre_tokenizer], NORMALIZERS["BERT"], kind)
        encoder = PartEncoder.of(core, BORDERS)
        assert encoder is not None

        assert encoder.ids(texts(600)) == whole_ids(core, texts(600))


def test_added_tokens_are_read_in_parts_as_in_the_whole() -> None:
    own = [
        AddedToken("foo"), AddedToken("zz", single_word=True), AddedToken("<mask>", lstrip=True, special=True),
        AddedToken("a.b", normalized=True), AddedToken("end|>", normalized=False), AddedToken("cat", special=True),
    ]  # fmt: skip
    core = tokenizer(PRE_TOKENIZERS["GPT-4"], NORMALIZERS["several"], "BPE", *own)
    encoder = PartEncoder.of(core, [*BORDERS, "cat"])
    assert encoder is not None and encoder.borders == ("<|user|>",)  # "end|>" lies in the other one; "cat" is a word

    assert encoder.ids(texts(2000)) == whole_ids(core, texts(2000))


@pytest.mark.parametrize(
    "made",
    [
        lambda: tokenizer(None),
        lambda: tokenizer(PRE_TOKENIZERS["BERT"], normalizers.Prepend("x")),
        lambda: tokenizer(PRE_TOKENIZERS["BERT"], normalizers.Replace(" ", "_")),
        lambda: tokenizer(PRE_TOKENIZERS["BERT"], normalizers.Strip()),
        lambda: tokenizer(split(r"\w+ \w+")),
        lambda: tokenizer(words_by(pre_tokenizers.ByteLevel(), pre_tokenizers.BertPreTokenizer())),
        lambda: tokenizer(pre_tokenizers.Split(" ", "removed")),
        lambda: tokenizer(pre_tokenizers.Metaspace(split=False)),
        lambda: tokenizer(words_by(pre_tokenizers.Digits())),
        lambda: tokenizer(PRE_TOKENIZERS["BERT"], None, "BPE", AddedToken("x", rstrip=True)),
        lambda: tokenizer(PRE_TOKENIZERS["BERT"], None, "BPE", AddedToken("x y")),
    ],
)
def test_a_tokenizer_that_may_look_across_a_space_encodes_whole_texts(made: Any) -> None:
    assert PartEncoder.of(made(), BORDERS) is None


def test_dropped_merges_are_drawn_for_each_text() -> None:
    core = tokenizer(PRE_TOKENIZERS["BERT"])
    core.model.dropout = 0.5

    assert PartEncoder.of(core) is None


def test_a_text_with_a_mark_of_ours_is_encoded_all_the_same() -> None:
    core = tokenizer(PRE_TOKENIZERS["GPT-2"])
    encoder = PartEncoder.of(core, BORDERS)
    assert encoder is not None
    some = ["the cat", "a \0 b", "a\1 the", "\2", "", "the cat"]

    assert encoder.ids(some) == whole_ids(core, some)


def test_what_is_known_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_parts, "MAX_KNOWN_BYTES", 100_000)
    monkeypatch.setattr(text_parts, "STRETCH_CHARACTERS", 500)
    monkeypatch.setattr(text_parts, "BATCH_CHARACTERS", 200)
    core = tokenizer(PRE_TOKENIZERS["GPT-2"])
    encoder = PartEncoder.of(core, BORDERS)
    assert encoder is not None
    some = [*texts(800, seed=3), *("".join(map(chr, range(start, start + 90))) for start in range(0x4E00, 0x5600, 7))]

    assert encoder.ids(some) == whole_ids(core, some)

    for parts in (encoder.known, encoder.before):
        assert parts
        assert sum(map(getsizeof, [*parts, *parts.values()])) < 130_000  # a stretch more than the bound


def test_the_built_in_tokenizer_is_one_that_cuts() -> None:
    core = Tokenizer.from_file(str(ROOT / "src/tunelab/starter/model/tokenizer.json"))
    encoder = PartEncoder.of(core, ["<|end|>", "<|user|>"])
    assert encoder is not None and encoder.borders == ("<|end|>", "<|user|>")

    assert encoder.ids(texts(2000)) == whole_ids(core, texts(2000))


def test_batches_hold_every_text_once_and_in_order() -> None:
    some = ["a" * size for size in (3, 3, 3, 3, 30, 1, 0, 0, 12)]

    parts = [[*part] for part in text_batches(some, 10)]

    assert [text for part in parts for text in part] == some
    assert [[len(text) for text in part] for part in parts] == [[3, 3, 3], [3], [30], [1, 0, 0], [12]]


def test_tokens_that_overlap_are_no_borders() -> None:
    assert stands_alone("<a>", ["<a>", "<b>", "c"])
    assert not stands_alone("<a>", ["<a>", "<a>x"])
    assert not stands_alone("<a>", ["<a>", "b<"])
    assert not stands_alone("<a>", ["<a>", ">x"])
    assert not stands_alone("aba", ["aba"])


def test_no_pattern_is_no_place_to_cut() -> None:
    assert space_cut_before(None) == ""
    assert space_cut_before({"type": "UnicodeScripts"}) == ""


@pytest.mark.parametrize("make_task", [Instruction, lambda: Classification("text", "label")], ids=["answers", "labels"])
def test_a_long_text_is_encoded_exactly_and_never_whole(
    make_task: Callable[[], Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the tokenizer itself takes two hundred bytes and more for a character, as it keeps the place of each token
    text, task = " ".join(texts(200)), make_task()
    records = [{"text": text, "label": label, "instruction": text, "output": "yes"} for label in ("a", "b")]
    task.fit(records)
    task.set_tokenizer(load_tokenizer(PretrainedModelConfig(path="package:tunelab.starter/model")), None)
    (expected,) = task.encode_all(records[0], 0)
    sizes = list[int]()
    encode = type(task.tokenizer).__call__

    def measured(self: Any, some: Any, *more: Any, **options: Any) -> Any:
        sizes.extend(map(len, [some] if isinstance(some, str) else some))
        return encode(self, some, *more, **options)

    monkeypatch.setattr(text_parts, "CHECKED_CHARACTERS", 100)
    monkeypatch.setattr(type(task.tokenizer), "__call__", measured)
    ((example,),) = task.encode_many(records[:1], 0)

    assert [*example.ids] == [*expected.ids] and len(expected.ids) > 1000
    assert 0 < max(sizes) < len(text) / 4
