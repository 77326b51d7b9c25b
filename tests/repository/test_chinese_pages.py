"""The Chinese pages: the commands, drawings and figures of the English ones, and records in Chinese that run."""

import re
from pathlib import Path

import pytest

from support.documented_commands import commands_of, furnish, run
from support.paths import ROOT

PAGES = {ROOT / "README.zh-CN.md": ROOT / "README.md"} | {
    page: ROOT / "docs" / page.name for page in sorted((ROOT / "docs" / "zh").glob("*.md"))
}
# Commands that only the Chinese README has: mirrors, and models and records in Chinese; where each is tried.
CHINESE_ONLY = {
    "export HF_ENDPOINT=": "a variable of huggingface_hub",
    "pip install modelscope": "downloads from the network",
    "experiment=recipes/": "tests/end_to_end/test_recipes.py",
    "data.train=wenda.jsonl": "below",
}
DECIMAL = re.compile(r"(?<![\w.-])\d+\.\d+(?!\w|\.\d)")


def plain(page: Path) -> set[str]:
    return {" ".join(command.split()) for command in commands_of(page)}


def parts(page: Path, pattern: str) -> list[str]:
    """What a pattern captures in a page outside its blocks of code."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(pattern, text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_chinese_page_shows_the_commands_of_the_english_one(page: Path) -> None:
    # tests of the English pages run them
    more = plain(page) - plain(PAGES[page])
    assert {command for command in more if not any(words in command for words in CHINESE_ONLY)} == set()
    if page.parent != ROOT:
        assert plain(PAGES[page]) - plain(page) == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != ROOT], ids=lambda page: page.name)
def test_a_chinese_page_has_the_sections_drawings_and_figures_of_the_english_one(page: Path) -> None:
    for pattern in (r"^(#+) ", r"!\[[^\]]*\]\((?:\.\./)*([^)]+)\)"):
        assert parts(page, pattern) == parts(PAGES[page], pattern)
    chinese, english = (set(DECIMAL.findall(one.read_text(encoding="utf-8"))) for one in (page, PAGES[page]))
    assert chinese == english


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_two_languages_lead_to_each_other(page: Path) -> None:
    for one, other in ((page, PAGES[page]), (PAGES[page], page)):
        links = re.findall(r"\]\(([^)#]+)\)", one.read_text(encoding="utf-8"))
        assert other in [(one.parent / link).resolve() for link in links if "://" not in link]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", sorted(command for command in plain(ROOT / "README.zh-CN.md") if "preview" in command)
)
def test_records_in_chinese_are_previewed(command: str, tmp_path: Path) -> None:
    given = command.replace("model=qwen3_0_6b", "model.path=my_model")
    done = run(given, furnish(tmp_path), "--output", str(tmp_path / "page.html"))

    assert done.returncode == 0, done.stderr[-2000:]
    assert "答" in done.stdout or "wenda" not in command
