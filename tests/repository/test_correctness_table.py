"""The tables of known defects and of promises name tests that exist."""

import ast
import re

import pytest

from support.paths import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


PAGES = ("correctness.md", "reliability.md")


def rows(page: str) -> list[tuple[str, str]]:
    """First and last cell of every row: the defect or the promise, and its tests."""
    lines = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| ")]
    cells = [line.strip("|").split("|") for line in lines]
    return [(row[0].strip(), row[-1]) for row in cells if row[-1].strip() != "our tests"]


def functions_of(path: str) -> list[str]:
    if not (ROOT / path).is_file():
        return []
    return [node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize(("page", "fewest"), [*zip(PAGES, (40, 20), strict=True)])
def test_every_defect_and_every_promise_stands_once_and_has_a_test(page: str, fewest: int) -> None:
    promises = [promise for promise, _ in rows(page)]

    assert len(promises) > fewest and len(set(promises)) == len(promises)
    assert not [promise for promise, tests in rows(page) if not NAMED.search(tests)]


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_table_names_exists_once(page: str) -> None:
    named = {match for _, tests in rows(page) for match in NAMED.findall(tests)}

    assert not [f"{path}::{name}" for path, name in sorted(named) if functions_of(path).count(name) != 1]


@pytest.mark.parametrize("page", PAGES)
def test_nothing_in_a_cell_of_tests_escapes_the_check(page: str) -> None:
    assert not [tests for _, tests in rows(page) if re.sub(r"[\s,]", "", NAMED.sub("", tests))]
