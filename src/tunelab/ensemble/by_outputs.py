"""An ensemble of models for labels or numbers, from their runs to its result."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.prepare import Sources
from tunelab.ensemble.evaluated import Evaluated, Result, place_of_best, primary
from tunelab.ensemble.labelled import Figures, Kind, cost, diversity, evaluated, scored
from tunelab.ensemble.measures import gain
from tunelab.ensemble.members import Place, check_alike, check_rows, splits_of
from tunelab.ensemble.outputs import Outputs, outputs
from tunelab.ensemble.rules import fit
from tunelab.ensemble.selection import forward
from tunelab.ensemble.temperature import expected_error, fit_temperature
from tunelab.equipment import objective
from tunelab.restore import Trained
from tunelab.tasks.base import Task
from tunelab.tasks.classification import Classification


@dataclass
class Heard:
    """The members and what they say of the validation rows."""

    places: list[Place]
    tasks: list[Task]
    sources: Sources
    said: list[Outputs]
    first: Trained


def listen(places: Sequence[Place]) -> Heard:
    """Restore one model after the other and ask it of the validation rows.

    Raises:
        ConfigError, DataError: If they do not belong together.
    """
    heard: Heard | None = None
    for place in places:
        trained = place.restore()
        if heard is None:
            heard = Heard([], [], splits_of(trained), [], trained)
        check_alike([heard.first, trained], [heard.first.folder.root.name, place.name])
        mine, first = trained.settings, heard.first.settings
        if mine.data != first.data or mine.seed != first.seed:
            check_rows(heard.sources, splits_of(trained), (str(heard.first.folder.root), place.name))
        heard.places.append(place)
        heard.tasks.append(trained.task)
        heard.said.append(outputs(trained, heard.sources.splits["validation"]))
    assert heard is not None
    return heard


def ensemble(places: Sequence[Place], method: str, select: int | None) -> tuple[Result, Trained, Sources]:
    """Fit on validation, judge on test.

    Args:
        places: Where the models lie.
        method: soft, hard, weighted or stack.
        select: Members at most, chosen among all for what they add to each other; None takes all.

    Returns:
        The result, the first member, and the splits.
    """
    heard = listen(places)
    kind = Kind(heard.tasks[0], heard.tasks)
    said, wanted = kind.spoken(heard.said), kind.wanted(heard.said[0])
    singles = [kind.measures(kind.logits(one), wanted) for one in said]
    name = primary(objective(heard.first.settings, kind.task)[0], singles[0])
    values = [measures[name].value for measures in singles]
    best = place_of_best(values, lower=singles[0][name].lower)
    loss = cost(kind, said, wanted)
    chosen = list(range(len(said))) if select is None else forward([loss([k]) for k in range(len(said))], loss, select)
    inside = Kind(kind.task, [heard.tasks[k] for k in chosen])
    rule = fit(method, inside, said[chosen], wanted)

    asked = [*chosen, *([best] if best not in chosen else [])]
    tested = [outputs(heard.places[k].restore(), heard.sources.splits["test"]) for k in asked]
    table = Kind(kind.task, [heard.tasks[k] for k in asked]).spoken(tested)
    alone = Kind(kind.task, [heard.tasks[best]]).logits(table[asked.index(best)])
    right = kind.wanted(tested[0])
    together = rule.combine(table[: len(chosen)])
    rows = heard.sources.splits["test"].rows
    test = evaluated(kind, together, tested[0], rows)
    own = rule.combine(said[chosen])
    validation = Evaluated(scored(kind.task, own, heard.said[0])[0], kind.measures(own, wanted))
    before = kind.measures(alone, right)
    facts: dict[str, Any] = {
        **rule.facts,
        "primary": name,
        "validation_of_singles": {place.name: value for place, value in zip(places, values, strict=True)},
        "disagreement": diversity(inside, table[: len(chosen)]),
    }
    if isinstance(kind.task, Classification):
        singly = kind.logits(said[best])
        facts["calibration"] = {
            "ensemble": calibrated(kind.task, own, wanted, together, right),
            "best_single": calibrated(kind.task, singly, wanted, alone, right),
        }
    gains = {score: gain(before[score], test.measures[score]) for score in before}
    names = [heard.places[k].name for k in chosen]
    result = Result(kind.task, names, rule.weights, heard.places[best].name, validation, test, gains, facts)
    return result, heard.first, heard.sources


def calibrated(
    task: Classification, fitted: Figures, known: NDArray[np.int64], judged: Figures, right: NDArray[np.int64]
) -> dict[str, float]:
    """The temperature that fits validation, and the expected calibration error on test without and with it."""
    several = task.multilabel
    temperature = fit_temperature(fitted, known, several=several)
    errors = [
        expected_error(judged, right, value, several=several, threshold=task.threshold) for value in (1.0, temperature)
    ]
    return {"temperature": temperature, "ece": errors[0], "ece_calibrated": errors[1]}
