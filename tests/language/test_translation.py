"""Messages in the language of the option, the config or the system; both catalogues complete."""

import os
import re
import subprocess
import sys
import tomllib
from string import Formatter

import pytest

from support.messages import PACKAGE, messages, messages_with_values
from support.paths import ROOT
from tunelab.cli.launch import take_language
from tunelab.errors import ConfigError
from tunelab.language.translation import (
    catalogue,
    configure_language,
    current_language,
    labelled,
    localize,
    message,
    translate,
)
from tunelab.search.trial_outcome import DISK_FULL_TEXTS, OUT_OF_MEMORY_TEXTS

CATALOGUE = PACKAGE / "language" / "zh.toml"
CHINESE = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))
HAN = "[\u4e00-\u9fff]"


@pytest.fixture(autouse=True)
def no_language(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNELAB_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, "")
    configure_language(None)


def test_a_message_is_a_literal_so_that_its_translation_can_be_looked_up() -> None:
    assert [place for text, place in messages() if text is None] == []


def test_every_message_has_its_chinese_text() -> None:
    missing = [f"{place}: {text}" for text, place in messages() if text is not None and not CHINESE.get(text)]
    assert not missing, "\n".join(missing)


def test_no_chinese_text_is_left_of_a_message_that_is_gone() -> None:
    assert sorted(CHINESE.keys() - {text for text, _ in messages()}) == []


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_placeholders_of_both_languages_agree() -> None:
    different = [text for text, chinese in CHINESE.items() if placeholders(text) != placeholders(chinese)]
    assert different == []


def test_every_placeholder_of_a_message_gets_its_value_where_the_message_is_used() -> None:
    unlike = [place for text, values, place in messages_with_values() if placeholders(text) != values]
    assert unlike == []


@pytest.mark.parametrize("sign", [*OUT_OF_MEMORY_TEXTS, *DISK_FULL_TEXTS])
def test_the_signs_by_which_a_search_knows_a_failure_stand_in_both_languages(sign: str) -> None:
    assert [text for text, chinese in CHINESE.items() if sign in text.lower() and sign not in chinese.lower()] == []


def test_the_quick_reading_of_a_catalogue_gives_what_toml_says() -> None:
    assert catalogue("zh") == CHINESE


def test_chinese_texts_use_chinese_punctuation_between_chinese_words() -> None:
    assert [text for text in CHINESE.values() if re.search(rf"{HAN}[,;:?!(]|[,;:?!)]{HAN}|{HAN} {HAN}", text)] == []


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_CN", "LANG": "en_US"}, "zh"),
        ({"TUNELAB_LANG": "en", "LANG": "zh_CN.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_system_names_the_language_and_the_variable_overrules_it(
    variables: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert current_language() == language


def test_a_config_goes_before_the_system_and_the_command_line_before_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    configure_language("zh")
    assert current_language() == "zh"
    assert take_language(["report", "RUN", "--lang", "en"]) == ["report", "RUN"]
    assert current_language() == "en"
    configure_language(None)


def test_the_word_of_a_config_stays_and_an_option_goes() -> None:
    assert take_language(["lang=zh", "lr=1e-4"]) == ["lang=zh", "lr=1e-4"]
    assert os.environ["TUNELAB_LANG"] == "zh"
    assert take_language(["--lang=en"]) == []
    assert os.environ["TUNELAB_LANG"] == "en"


@pytest.mark.parametrize("words", [["--lang", "fr"], ["lang=fr"], ["--lang"], ["--lang="]])
def test_an_unknown_language_is_refused_with_those_there_are(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="en, zh"):
        take_language(words)


def test_an_unknown_message_and_one_without_values_stay_as_they_are() -> None:
    assert translate("a brace { stays") == "a brace { stays"
    assert translate("{count:,} rows", count=1200) == "1,200 rows"


def test_a_marked_message_is_translated_where_it_is_shown_and_a_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELAB_LANG", "zh")
    assert [localize(message("rows")), localize("rows"), localize(3)] == ["行数", "rows", 3]
    assert translate("{name} is missing, so this report lacks {what}", name="a", what=message("final scores")) == (
        "缺少 a，因此报告缺少最终指标"
    )
    assert labelled("a", "b") == "a：b"


def test_english_reads_no_catalogue() -> None:
    code = "import sys; from tunelab import errors; errors.ConfigError.listing([]); print('tomllib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_an_output_without_chinese_letters_gets_their_numbers_instead_of_an_error() -> None:
    code = "from tunelab.cli.main import main; main(['--lang', 'zh', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\\u8bad\\u7ec3" in done.stdout
