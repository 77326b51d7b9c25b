"""The confidence interval of a test score in a few words.  Pure."""

from tunelab.effects.intervals import between, bootstrap, wilson
from tunelab.report.row_scores import row_scores
from tunelab.report.run_facts import RunFacts
from tunelab.report.words import shown

DRAWS = 500  # enough for two digits of an interval


def interval_of(run: RunFacts, name: str) -> str:
    """The 95 % interval of a test score over rows like these; empty where predictions do not give the score."""
    found = next((score for score in row_scores(run.predictions) if score.name == name), None)
    known = run.scores.get(f"test/{name}")
    rows = len(run.predictions)
    if found is None or known is None or rows < 2:
        return ""
    if found.binary:
        low, high = wilson(int(found.each.sum()), rows)
    else:
        low, high = between(bootstrap(rows, found.over, draws=DRAWS))
    return f"95 %: {shown(low)} to {shown(high)} over {rows:,} rows"
