"""What judged answers add up to: sums and counts, from which every score and table follows.  Pure.

C classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any

from tunelab.tasks.choices import Classes
from tunelab.tasks.label_scores import macro, per_class

TEXT = ("exact_match", "token_f1", "rougeL", "unfinished")  # means over answers
CHOICE = ("accuracy", "f1", "unmatched")  # of answers to records that offer choices
COUNTS = 4  # numbers that come before the scores of a vector: answers, those to choices, right ones, unmatched ones
GROUPS = ("family", "source")  # keys of a prediction by which there are tables

Prediction = Mapping[str, Any]


class Tally:
    """What predictions add up to: a vector of counts and sums, from which every score follows.

    Args:
        classes: What answers are sorted into, C of them.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.names = (*TEXT, *(CHOICE if classes.names else ()))
        self.width = COUNTS + len(TEXT) + 3 * len(classes.names)

    def vector(self, prediction: Prediction) -> list[float]:
        """Counts, text scores, and for each class whether it was right and said, said, right."""
        found = [0.0] * self.width
        if "exact_match" not in prediction:  # plain text asks nothing
            return found
        found[0] = 1
        found[COUNTS : COUNTS + len(TEXT)] = [
            *(prediction[name] for name in TEXT[:3]),
            float(prediction["ended"] != "stop"),
        ]
        if "label" in prediction:
            label, choice = prediction["label"], prediction["choice"]
            found[1:COUNTS] = [1, float(label == choice), float(choice is None)]
            texts = prediction.get("choices", ())
            real, guessed = (self.classes.place(texts, text) for text in (label, choice))
            start, count = COUNTS + len(TEXT), len(self.classes.names)
            for offset, place in ((1, guessed), (2, real)):
                if place is not None:
                    found[start + offset * count + place] = 1
            if real is not None and real == guessed:
                found[start + real] = 1
        return found

    def total(self, predictions: Iterable[Prediction]) -> list[float]:
        """The sum of the vectors of many predictions."""
        found = [0.0] * self.width
        for prediction in predictions:
            found = [a + b for a, b in zip(found, self.vector(prediction), strict=True)]
        return found

    def scores(self, total: Sequence[float]) -> dict[str, float]:
        """Every score by its bare name; nan where nothing was answered.

        F1 is the plain mean over all classes, those that never occur included (they count as 0).
        """
        answers, offered, right, unmatched = total[:COUNTS]
        means = total[COUNTS : COUNTS + len(TEXT)]
        found = {name: value / answers if answers else nan for name, value in zip(TEXT, means, strict=True)}
        if self.classes.names:
            f1 = macro(self.by_class(total))["f1"]
            found |= {"accuracy": right / offered if offered else nan, "f1": f1 if offered else nan}
            found["unmatched"] = unmatched
        return found

    def by_class(self, total: Sequence[float]) -> list[dict[str, Any]]:
        """Precision, recall, F1 and support of each class."""
        start, count = COUNTS + len(TEXT), len(self.classes.names)
        hits, guessed, real = (
            [int(value) for value in total[start + part * count : start + (part + 1) * count]] for part in range(3)
        )
        return per_class(self.classes.names, hits, guessed, real)

    def tables(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Scores of each task family and of each source, and of each class; plain JSON values."""
        found: dict[str, Any] = {}
        for key in GROUPS:
            groups: dict[str, list[Prediction]] = {}
            for prediction in predictions:
                if "exact_match" in prediction:
                    groups.setdefault(str(prediction.get(key, "(none)")), []).append(prediction)
            if groups.keys() - {"(none)"}:
                found[f"by_{key}"] = {name: self.row(groups[name]) for name in sorted(groups)}
        if self.classes.names:
            found["choices"] = self.by_class(self.total(predictions))
        return found

    def row(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """One line of a table: the number of answers, then their scores."""
        total = self.total(predictions)
        scores = {name: value for name, value in self.scores(total).items() if value == value}
        if not total[1]:
            scores = {name: value for name, value in scores.items() if name not in CHOICE}
        return {"rows": len(predictions), **scores}
