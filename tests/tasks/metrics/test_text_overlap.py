"""Scores of texts by words and characters of every script."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.tasks.metrics.text_overlap import exact_match, rouge_l, token_f1, word_tokens

WORDS = {  # a sentence, its words, and an unrelated sentence
    "English": ("The cat sat, quietly.", ["the", "cat", "sat", "quietly"], "Dogs bark!"),
    "German": ("Größe zählt", ["grösse", "zählt"], "Wer bist du?"),
    "Russian": ("Москва — столица России!", ["москва", "столица", "россии"], "я люблю кофе"),
    "Greek": ("Ο ήλιος λάμπει;", ["ο", "ήλιοσ", "λάμπει"], "κακή μέρα"),
    "Arabic": ("مرحبا بالعالم، كيف حالك؟", ["مرحبا", "بالعالم", "كيف", "حالك"], "الكتاب على الطاولة"),
    "Hebrew": ("שלום, עולם", ["שלום", "עולם"], "ספר טוב"),
    "Persian": ("او می\u200cرود.", ["او", "میرود"], "کتاب خوب"),
    "Korean": ("도서관에 갔다.", ["도서관에", "갔다"], "밥을 먹는다"),
    "Vietnamese": ("Tiếng Việt rất đẹp", ["tiếng", "việt", "rất", "đẹp"], "trời hôm nay"),
    "Hindi": ("हिन्दी भाषा सुंदर है।", ["हिन्दी", "भाषा", "सुंदर", "है"], "मौसम अच्छा था"),
    "Tamil": ("நன்றி, வணக்கம்", ["நன்றி", "வணக்கம்"], "நல்ல நாள்"),
    "Armenian": ("Բարև աշխարհ։", ["բարեւ", "աշխարհ"], "գիրք լավ"),
    "Amharic": ("ሰላም፣ ዓለም።", ["ሰላም", "ዓለም"], "ጥሩ ቀን"),
    "Chinese": ("我喜欢GPT，2023年。", ["我", "喜", "欢", "gpt", "2023", "年"], "今天下雨"),
    "Japanese": ("「猫カフェ」だ", ["猫", "カ", "フ", "ェ", "だ"], "本を読む"),
    "Thai": ("ง่ายๆ", ["ง่", "า", "ย", "ๆ"], "หนัง"),
    "Lao": ("ລາວ", ["ລ", "າ", "ວ"], "ດີ"),
    "Khmer": ("ខ្មែរ", ["ខ្", "មែ", "រ"], "ទឹក"),
    "Burmese": ("မြန်မာ", ["မြ", "န်", "မာ"], "ရေ"),
    "symbols": ("-5 € + 3 ≠ 👍🏽", ["-5", "€", "+", "3", "≠", "👍"], "= 👎"),
}


@pytest.mark.parametrize("script", WORDS)
def test_a_text_is_scored_by_the_words_of_its_script(script: str) -> None:
    text, words, unrelated = WORDS[script]
    assert word_tokens(text) == words
    half = " ".join(words[: len(words) // 2])
    expected = 2 * (len(words) // 2) / (len(words) // 2 + len(words))
    assert token_f1(half, text) == pytest.approx(expected) == rouge_l(half, text)
    assert token_f1(unrelated, text) == 0 == rouge_l(unrelated, text)
    for same in (unicodedata.normalize("NFD", text), f" {text.upper()} …", " ".join(words)):
        assert exact_match(same, text) == token_f1(same, text) == rouge_l(same, text) == 1


SAME = [("Ａ１", "a1"), ("ﬁn", "fin"), ("ｶﾞ", "ガ"), ("a\u00a0b", "a b"), ("co\u00adop", "coop"),
        ("❤️", "❤"), ("İ", "i̇")]  # fmt: skip
OTHER = [("2⁵", "25"), ("1½", "11/2"), ("-5", "5"), ("−5", "5"), ("!", "?"),
         ("👍", "👎"), ("a<b", "a>b"), ("", "?"), ("é", "e")]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_text_in_another_form_is_equal_by_every_score(one: str, other: str) -> None:
    assert exact_match(one, other) == token_f1(one, other) == rouge_l(one, other) == 1


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_what_changes_the_meaning_is_different_by_every_score(one: str, other: str) -> None:
    assert exact_match(one, other) == 0
    assert token_f1(one, other) < 1 and rouge_l(one, other) < 1


TEXTS = st.text(st.sampled_from("ab B.,!?-−5 2³ée\u0301की我ก👍$\u200b\n"), max_size=6)


@settings(max_examples=400, deadline=None)
@given(TEXTS, TEXTS)
def test_exact_match_is_rouge_of_one_and_f1_of_one_but_for_the_order(one: str, other: str) -> None:
    assert (exact_match(one, other) == 1) == (rouge_l(one, other) == 1)
    assert (sorted(word_tokens(one)) == sorted(word_tokens(other))) == (token_f1(one, other) == 1)
    assert rouge_l(one, other) <= token_f1(one, other)
    assert exact_match(one, one) == 1
