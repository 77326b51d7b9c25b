"""Label values as people write them, turned into class names and weights.  Pure: values in, values out."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real

from tunelab.errors import ConfigError, DataError

SHOWN = 12  # names listed in a message before it stops with a count


def label_name(value: object) -> str:
    """The name of one class: 1, 1.0 and "1" are the same label, and blanks around a name do not count.

    Raises:
        DataError: If the value is empty, a list, or a number that is no whole number.

    Example:
        >>> label_name(" spam "), label_name(3), label_name(3.0), label_name(True)
        ('spam', '3', '3', 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real) and isfinite(value):
        if float(value).is_integer():
            return str(int(float(value)))
        raise DataError(f"label {value!r} is a fraction, not a class; scores are learned with data=regression")
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, list | tuple):
        raise DataError(f"label is a list, {value!r}; lists of labels are learned with data.multilabel=true")
    raise DataError(f"label is empty ({value!r}); every record needs one, so drop the record or fill it in")


def label_names(value: object) -> list[str]:
    """The names in one multi-label cell: a list, or its JSON text; an empty list means that no class applies.

    Raises:
        DataError: If the cell is neither, or names a label twice (as vectors of 0 and 1 do).

    Example:
        >>> label_names(["joy", 2]), label_names('["joy"]')
        (['joy', '2'], ['joy'])
    """
    cell = value
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError:
            cell = None
    if not isinstance(cell, list | tuple):
        raise DataError(f'labels are {value!r}, not a list; write ["a", "b"] (in a CSV: the same as JSON text)')
    names = [label_name(item) for item in cell]
    if len(set(names)) < len(names):
        raise DataError(f"labels {value!r} name one twice; give the names that apply, not a 0 or 1 per class")
    return names


def in_order(names: set[str]) -> list[str]:
    """Names sorted as text, or by value where every one is a whole number, so that 2 comes before 10."""
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)


def unknown_label(name: str, known: Sequence[str]) -> str:
    """What to tell about a label that the training split does not have: the closest known names come first."""
    close = get_close_matches(name, known, n=SHOWN, cutoff=0.6)
    listed = [*close, *(other for other in known if other not in close)]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    hint = f"; did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(repr(other) for other in listed[:SHOWN])
    return f"label {name!r} never occurs in the training split, so it cannot be learned{hint} (known: {shown}{more})"


def balanced(counts: Sequence[int], rows: int) -> list[float]:
    """Weights that give every class the same say: rows / (C * count), as scikit-learn's "balanced"."""
    return [rows / (len(counts) * count) for count in counts]


def positive_balance(counts: Sequence[int], rows: int) -> list[float]:
    """For labels that are on or off: how many records lack a label for each one that has it, at least 1 / count."""
    return [max(rows - count, 1) / count for count in counts]


def given_weights(weights: Mapping[object, float], labels: Sequence[str]) -> list[float]:
    """Weights named by hand, in the order of `labels`; a label that is not named weighs 1.

    Raises:
        ConfigError: If a name is no label of the training split, or a weight is not above 0.
    """
    named: dict[str, object] = {label_name(key): weight for key, weight in weights.items()}
    faults = [f"data.class_weights: {unknown_label(name, labels)}" for name in named if name not in labels]
    faults += [
        f"data.class_weights.{name} is {weight!r}; a weight is a number above 0, to leave a class out drop its records"
        for name, weight in named.items()
        if not positive(weight)
    ]
    if faults:
        raise ConfigError.listing(faults)
    plain = {label_name(key): float(weight) for key, weight in weights.items()}
    return [plain.get(name, 1.0) for name in labels]


def positive(value: object) -> bool:
    """Whether a value is a finite number above 0; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0
