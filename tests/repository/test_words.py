"""Terms of the field in everything a user reads: phrases of ours that had to be decoded are gone."""

import re
from pathlib import Path

import pytest

from support.paths import ROOT

# A phrase that a newcomer stumbled over, and what to write.  Both as a regular expression and in words.
PHRASES = {
    r"what it learned, as a page|\bas a page\b": "HTML report",
    r"rows: end to end|rows laid end to end|\brun from end to end\b": "packing: on",
    r"half up to": "min, median, max",
    r"texts that stand\s+twice|rows? .{0,20}repeat another": "duplicate texts, duplicate rows",
    r"stand in another, exactly or\s+nearly|are copies from|more alike\)": "near-duplicate leakage",
    r"rows are left out|has nothing to learn in it": "dropped: N over max_tokens, M without target tokens",
    r"no search at all": "the search found nothing better",
    r"\bby its logarithm": "log scale",
    r"was it luck|is the luckiest of|\bhow far luck\b|says that luck": "re-run with new seeds; seed variance unknown",
    r"reached a safe point|at the next safe point": "stopping after trial N saves a checkpoint",
    r"left by its engine|without its engine": "its search process had stopped",
    r"\bright / said\b|\bsaid and right\b": "true / predicted",
    r"Never found:": "classes never predicted",
    r"\bsurest\b": "sorted by confidence",
    r"where they did best|settings stand where": "best score found with this value",
    r"for other trials as many": "90 % bootstrap band of that best score",
    r"what the fitted surface does not know": "95 % uncertainty of the surrogate model",
    r"\bIn short\b|How it came to be": "Summary, Provenance",
    r"\blook \{?\w+\}? at this|\blooks? at the test split|was looked at \{|look is not counted": "evaluation N",
    r"in passing, while|while no activations stand": "temporary, after activations are freed",
    r"is multiplied by \{|on its way (up|down)": "activation RMS, last over first layer",
    r"are there, so (it|this)": "needs X, Y available: fits",
    r"from its card|is its card|its card alone": "re-run from run.json",
    r"nothing that the (card|manifest)|what differs from then": "no change in code, data, versions or hardware",
    r"leaves the finite numbers|loss .{0,10}is not finite numbers": "becomes NaN or Inf",
    r"\bown_lr\b|\bsearch\.judge\b|\bsearch\.slots\b|\bgap_rows\b": "default_lr, test_best, train_eval_rows",
    r"\bnumbers? of memory\b": "optimizer states per parameter",
    r"lets? rows stand alone|rows stand alone": "null: no grouping",
    r"throw-away": "temporary",
    r"too good to be true": "too optimistic",
    r"\bby heart\b": "memorized, overfit",
    r"nobody foresaw": "unexpected error",
    r"is told (once|before)|\bare told before\b": "is reported",
    r"meets? the test split": "is evaluated on the test split",
    r"halves of letters": "unpaired surrogates",
    r"score +score": "score, value",
}
# File to phrases that it may hold, with the reason.
EXCEPTIONS = {
    "docs/renames.md": "names of earlier versions, so that a reader finds what they became",
    "CHANGELOG.md": "history",
    "src/tunelab/config/renames.py": "names of earlier versions, which are still read",
}
FILES = [
    *sorted((ROOT / "src").rglob("*.py")),
    *sorted((ROOT / "src").rglob("*.html")),
    *sorted((ROOT / "conf").rglob("*.yaml")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "README.md",
]


def places(pattern: re.Pattern[str], path: Path) -> list[str]:
    """File and line of each match."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    return [f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}" for match in pattern.finditer(text)]


@pytest.mark.parametrize(("phrase", "better"), PHRASES.items(), ids=[*PHRASES.values()])
def test_a_phrase_that_had_to_be_decoded_is_gone(phrase: str, better: str) -> None:
    pattern = re.compile(phrase)
    left = [
        place
        for path in FILES
        if path.relative_to(ROOT).as_posix() not in EXCEPTIONS
        for place in places(pattern, path)
    ]
    assert not left, f"write rather: {better}\n" + "\n".join(left)


def test_exceptions_exist() -> None:
    assert all((ROOT / name).is_file() for name in EXCEPTIONS)
