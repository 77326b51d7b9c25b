"""The table of known defects names tests that exist."""

import ast
import re

from support.paths import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> list[tuple[str, str]]:
    """First and last cell of every row: the defect, and its tests."""
    lines = [line for line in (ROOT / "docs" / "correctness.md").read_text().splitlines() if line.startswith("| ")]
    cells = [line.strip("|").split("|") for line in lines]
    return [(row[0].strip(), row[-1]) for row in cells if row[-1].strip() != "our tests"]


def functions_of(path: str) -> list[str]:
    if not (ROOT / path).is_file():
        return []
    return [node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)]


def test_every_known_defect_stands_once_and_has_a_test() -> None:
    defects = [defect for defect, _ in rows()]

    assert len(defects) > 40 and len(set(defects)) == len(defects)
    assert not [defect for defect, tests in rows() if not NAMED.search(tests)]


def test_every_test_that_the_table_names_exists_once() -> None:
    named = {found for _, tests in rows() for found in NAMED.findall(tests)}

    assert not [f"{path}::{name}" for path, name in sorted(named) if functions_of(path).count(name) != 1]


def test_nothing_in_a_cell_of_tests_escapes_the_check() -> None:
    assert not [tests for _, tests in rows() if re.sub(r"[\s,]", "", NAMED.sub("", tests))]
