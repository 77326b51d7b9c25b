"""docs/design.md against the code: the tree, the files it names, the four walks."""

import re

import pytest

from support.paths import ROOT
from support.walks import AIMS, PAGE, WALKS, new_files, trace, tree_text, walk_text

TEXT = PAGE.read_text(encoding="utf-8")
SRC = ROOT / "src" / "tunelab"


def block(name: str) -> str:
    return TEXT.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


def test_the_tree_is_that_of_the_source() -> None:
    assert block("tree") == tree_text(), "write it anew: cd tests && python -m support.walks tree"


def test_every_module_that_the_page_names_is_there() -> None:
    named = sorted(set(re.findall(r"`([\w/]+\.py)`", TEXT)))

    assert len(named) > 30
    assert not [file for file in named if not (SRC / file).is_file() and not (ROOT / file).is_file()]


def test_the_page_has_each_walk_with_its_number_of_files() -> None:
    heads = re.findall(r"^### (.+): (\d+) files$", block("walks"), re.MULTILINE)
    rows = re.split(r"^### .*$", block("walks"), flags=re.MULTILINE)[1:]

    assert [name.lower() for name, _ in heads] == list(AIMS)
    assert [int(count) for _, count in heads] == [
        len(re.findall(r"`[\w/]+\.py`", row.partition("|")[2])) for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKS)
def test_a_walk_is_what_a_real_run_does(name: str) -> None:
    stacks = trace(name)

    assert sum(map(len, new_files(stacks).values())) > 4
    assert walk_text(name, stacks) in block("walks"), "write it anew: make walks"
