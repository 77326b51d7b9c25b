"""A count agrees with its noun: `1 row`, never `1 rows`, in every message of the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.messages import PACKAGE
from support.paths import ROOT
from tunelab.data.summary_text import describe_duplicates
from tunelab.language.translation import agree, translate

NOUNS = (
    "rows records trials runs steps seeds epochs files tokens values classes labels answers texts folds pairs examples "
    "sequences questions settings members models scores points characters lines others layers cores devices processes "
    "entries groups configurations columns weights validations checkpoints batches messages turns sets "
    "trainings prompts "
    "places items arrays stages machines names spikes cells sources ranks sizes rates studies folders notes"
).split()
COUNT_BEFORE_NOUN = re.compile(rf"\{{([^{{}}]*)\}} (?:[a-z-]+ ){{0,1}}({'|'.join(NOUNS)})\b")
LOOKS_LIKE_A_COUNT = re.compile(r"\blen\(|\bcount\b|\btotal\b|:,|:\.0f|\.size\b|\bsteps\b|\bseeds\b|\bfolds\b")
NEVER_ONE = (  # the count is two or more there, or none but programmers read it
    "analysis/setting_effect.py", "analysis/next_space.py", "config/stored_files.py", "report/charts/",
    "report/document.py",
    "report/render.py", "report/study_checks.py:8", "report/study_checks.py:9",
)  # fmt: skip


def templates_of(path: Path) -> Iterator[tuple[int, str]]:
    """The f-strings and texts with placeholders of a module: line, and the text with `{expression:format}`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(map(part_text, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, "" if "\n" in node.value else node.value  # a docstring is no message


def part_text(part: ast.expr) -> str:
    """One part of an f-string as in its source; braces within an expression as parentheses."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    form = "".join(map(part_text, part.format_spec.values)) if isinstance(part.format_spec, ast.JoinedStr) else ""
    return "{" + re.sub(r"[{}]", "|", ast.unparse(part.value)) + (f":{form}" if form else "") + "}"


def test_no_message_puts_a_noun_in_the_plural_after_a_count_that_may_be_one() -> None:
    faults = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in templates_of(path):
            where = f"{path.relative_to(PACKAGE)}:{line}"
            for match in COUNT_BEFORE_NOUN.finditer(text):
                agrees = not LOOKS_LIKE_A_COUNT.search(match[1])
                if not agrees and not where.startswith(NEVER_ONE) and "starter" not in where:
                    faults.append(f"src/{path.relative_to(ROOT / 'src')}:{line}: {match[0]}")
    assert not faults, "write [row|rows] after the count:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("{rows:,} [row is|rows are] cut", {"rows": 1}, "1 row is cut"),
        ("{rows:,} [row is|rows are] cut", {"rows": 0}, "0 rows are cut"),
        ("{rows:,} [row is|rows are] cut", {"rows": 1200}, "1,200 rows are cut"),
        ("{left} of {all} [row|rows]", {"left": 1, "all": 26}, "1 of 26 rows"),
        ("{count:.0f} [step was|steps were] skipped", {"count": 1.0}, "1 step was skipped"),
        ("{rows} {split} [row|rows]", {"rows": "1", "split": "test"}, "1 test row"),
        ("{count} [row|rows] lost [its|their] label", {"count": 1}, "1 row lost its label"),
        ("{count} [message|messages]", {"count": "11"}, "11 messages"),
    ],
)
def test_a_message_agrees_with_the_count_before_its_noun(text: str, values: dict[str, object], expected: str) -> None:
    assert agree(text, values).format(**values) == expected
    assert translate(text, **values) == expected


def test_a_duplicate_of_one_row_is_told_in_the_singular() -> None:
    report = {
        "duplicates": {"train": {"repeats": 1}},
        "token_duplicates": {"rows": 1, "across_splits": 0},
        "conflicts": {"texts": 1},
    }
    assert describe_duplicates(report) == (
        "1 duplicate row in train; 1 row with another text but the same tokens; 1 duplicate text with different labels"
    )
