"""The search space: dimensions (choices, numeric ranges, log scale), conditional settings, and Hydra's sweep syntax
(`interval(1e-5,1e-3)`, `adamw,sgd`) that describes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

Scalar = str | int | float | bool | None  # what a study stores
LOG_SCALE_RATIO = 100  # a positive range of two decades or more is searched by its logarithm


class SuggestingTrial(Protocol):
    """The part of an Optuna trial that a dimension asks."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number of a range."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number of a range."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of several values."""


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        values: As a study stores them; a list or a mapping is stored as its text.
        texts: The same as they stand behind `key=` on a command line.
    """

    values: tuple[Scalar, ...]
    texts: tuple[str, ...]

    def suggest(self, trial: SuggestingTrial, key: str) -> Scalar:
        """The value that the trial proposes."""
        return trial.suggest_categorical(key, self.values)

    def text(self, value: Scalar) -> str:
        """A value as it stands behind `key=`."""
        return self.texts[self.place(value)]

    def place(self, value: Scalar) -> int:
        """The index of a value; 1, 1.0 and true are three values.

        Raises:
            ValueError: If it is none of this choice.
        """
        for index, known in enumerate(self.values):
            if type(known) is type(value) and known == value:
                return index
        return self.values.index(value)

    def holds(self, value: Scalar) -> bool:
        """Whether a study may store this value here."""
        return value in self.values

    def points(self) -> tuple[Scalar, ...]:
        """Every value, for a grid."""
        return self.values

    def told(self) -> str:
        """The dimension in words."""
        return "one of " + ", ".join(self.texts)


@dataclass(frozen=True)
class NumericRange:
    """A range of numbers, both ends included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        integer: Whether only whole numbers are proposed.
        log: Whether the logarithm is searched evenly rather than the value.
    """

    low: float
    high: float
    integer: bool = False
    log: bool = False

    def suggest(self, trial: SuggestingTrial, key: str) -> Scalar:
        """The value that the trial proposes."""
        if self.integer:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def text(self, value: Scalar) -> str:
        """A value as it stands behind `key=`."""
        return repr(value)

    def holds(self, value: Scalar) -> bool:
        """Whether a study may store this value here."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.integer or float(value).is_integer())

    def points(self) -> tuple[Scalar, ...] | None:
        """Every value of a range of whole numbers; None where there is no end of them."""
        return tuple(range(int(self.low), int(self.high) + 1)) if self.integer else None

    def told(self) -> str:
        """The dimension in words."""
        kind = "whole numbers " if self.integer else ""
        return f"{kind}{self.low:g} to {self.high:g}{', by its logarithm' if self.log else ''}"


Dimension = Choice | NumericRange


def make_range(low: float, high: float, *, integer: bool = False, log: bool | None = None) -> NumericRange:
    """A range; its scale follows from its size unless it is set.

    Raises:
        ValueError: If the range is empty, or a logarithm is asked of what has none.
    """
    if not low < high:
        raise ValueError(f"{low:g} to {high:g} is no range; give the smaller number first")
    if log and low <= 0:
        raise ValueError(f"the logarithm of {low:g} does not exist; start above 0, or leave the scale out")
    wide = low > 0 and high / low >= LOG_SCALE_RATIO * (1 - 1e-12)  # 1e-3 / 1e-5 is 99.99999999999999
    return NumericRange(low, high, integer, wide if log is None else log)


def parse_dimension(key: str, words: Any, default: Any = None) -> Dimension:
    """The dimension that a space file or a command line describes.

    Args:
        key: Which setting varies; for messages.
        words: Hydra's text, such as `interval(1e-5,1e-3)`, `int(interval(1,8))`, `tag(log,interval(1,5))`, `range(1,5)`
            or `a,b`; or a list of values.
        default: The value without a search.  Where it is a whole number, an interval is one of whole numbers.

    Raises:
        ValueError: If it describes no set of values.
    """
    if isinstance(words, Sequence) and not isinstance(words, str):
        texts = tuple(dict.fromkeys(to_hydra_text(value) for value in words))
        if not texts:
            raise ValueError(f"{key}: an empty list holds no value to try")
        return Choice(tuple(stored_value(key, text) for text in texts), texts)
    if not isinstance(words, str):
        raise ValueError(f"{key}: {words!r} is one value; a search needs several, such as interval(1e-5,1e-3) or a,b")
    return dimension_of_override(parse_sweep_override(key, words), default)


def parse_sweep_override(key: str, words: str) -> Override:
    """An override as Hydra reads it.

    Raises:
        ValueError: If Hydra cannot.
    """
    try:
        return OverridesParser.create().parse_override(f"{key}={words}")
    except HydraException as fault:
        first = str(fault).splitlines()[0]
        raise ValueError(f"{key}={words}: {first}; write interval(1e-5,1e-3), range(1,5) or a,b") from fault


def dimension_of_override(override: Override, default: Any = None) -> Dimension:
    """The dimension of an override that names several values.

    Args:
        override: As Hydra read it.
        default: The value without a search; see `dimension`.

    Raises:
        ValueError: If it names one value only, or an empty range.
    """
    key, values = override.key_or_group, override.value()
    if isinstance(values, IntervalSweep):
        low, high = cast(float, values.start), cast(float, values.end)
        whole = is_integer_interval(override) or (isinstance(default, int) and not isinstance(default, bool))
        log = True if "log" in values.tags else False if "linear" in values.tags else None
        try:
            if whole and not (float(low).is_integer() and float(high).is_integer()):
                raise ValueError(f"{low:g} to {high:g}: this setting is a whole number, so must be both ends")
            return make_range(low, high, integer=whole, log=log)
        except ValueError as fault:
            raise ValueError(f"{key}: {fault}") from fault
    if isinstance(values, RangeSweep) and not values.shuffle and values.step == 1 and isinstance(values.start, int):
        last = int(cast(float, values.stop)) - 1  # Hydra's range leaves its end out
        if last > values.start:
            return make_range(values.start, last, integer=True, log=False)
    if isinstance(values, ChoiceSweep | RangeSweep):
        texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
        return Choice(tuple(stored_value(key, text) for text in texts), texts)
    raise ValueError(f"{override.input_line} is one value; a search needs several, such as interval(1e-5,1e-3) or a,b")


def is_integer_interval(override: Override) -> bool:
    """Whether an interval is of whole numbers: `int(interval(1,8))`; Hydra makes floats of a bare one."""
    return "int(" in (override.input_line or "").replace(" ", "")


def stored_value(key: str, text: str) -> Scalar:
    """The value that a study stores for a text behind `key=`; lists and mappings keep their text."""
    value: Any = OverridesParser.create().parse_override(f"{key}={text}").value()
    if isinstance(value, QuotedString):
        return str(value.text)
    return value if value is None or isinstance(value, str | int | float | bool) else text


def to_hydra_text(value: Any) -> str:
    """A plain value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(to_hydra_text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{to_hydra_text(inner)}" for name, inner in value.items()) + "}"
    return quote_hydra(str(value))


def quote_hydra(text: str) -> str:
    """A text as one Hydra value: bare where Hydra reads it back as it is, else in quotes."""
    try:
        if OverridesParser.create().parse_override(f"key={text}").value() == text:
            return text
    except HydraException:
        pass
    escaped = text.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'" if not escaped.endswith("\\") else f"'{escaped}\\'"


Params = dict[str, Scalar]


@dataclass(frozen=True)
class Condition:
    """Settings that vary only where `key` has `value`."""

    key: str
    value: Scalar
    dimensions: Mapping[str, Dimension]

    @property
    def named(self) -> str:
        """The condition as it stands in a config."""
        return f"{self.key}={self.value}"

    def met(self, params: Mapping[str, Scalar]) -> bool:
        """Whether these settings are part of such a configuration."""
        return self.key in params and params[self.key] == self.value


@dataclass(frozen=True)
class Space:
    """What varies in a search.

    Attributes:
        always: Settings that every configuration has.
        when: Settings that only some have.
    """

    always: Mapping[str, Dimension]
    when: tuple[Condition, ...] = field(default=())

    def suggest(self, trial: SuggestingTrial) -> Params:
        """The configuration that a trial proposes."""
        params = {key: found.suggest(trial, key) for key, found in self.always.items()}
        for condition in self.when:
            if condition.met(params):
                params |= {
                    key: self.stored(key, found).suggest(trial, key) for key, found in condition.dimensions.items()
                }
        return params

    def stored(self, key: str, found: Dimension) -> Dimension:
        """A conditional setting as a study stores it: Optuna takes one list of values for a name, under all conditions.

        So a sampler that knows nothing of conditions may propose a value of another condition: see `holds`.
        """
        if not isinstance(found, Choice):
            return found
        others = [condition.dimensions[key] for condition in self.when if key in condition.dimensions]
        pairs = [pair for one in others if isinstance(one, Choice) for pair in zip(one.values, one.texts, strict=True)]
        each = {(type(value), value): (value, text) for value, text in pairs}
        values, texts = zip(*each.values(), strict=True)
        return Choice(values, texts)

    def all(self) -> dict[str, Dimension]:
        """Every setting that may vary; where two conditions name one, the first."""
        found = dict(self.always)
        for condition in self.when:
            found = dict(condition.dimensions) | found
        return {**{key: found[key] for key in self.always}, **found}

    def at(self, params: Mapping[str, Scalar]) -> dict[str, Dimension]:
        """The settings that a configuration has."""
        found = dict(self.always)
        for condition in self.when:
            if condition.met(params):
                found |= condition.dimensions
        return found

    def overrides(self, params: Mapping[str, Scalar]) -> list[str]:
        """A configuration as it stands on a command line."""
        dimensions = self.at(params)
        return [f"{key}={dimensions[key].text(value)}" for key, value in params.items()]

    def holds(self, params: Mapping[str, Scalar]) -> bool:
        """Whether the configuration lies in this space, with no setting missing and none too many."""
        dimensions = self.at(params)
        return dimensions.keys() == params.keys() and all(dimensions[key].holds(v) for key, v in params.items())

    def grid(self) -> Iterator[Params]:
        """Every configuration.

        Raises:
            ValueError: Naming the settings whose values have no end.
        """
        endless = [key for key, found in self.all().items() if found.points() is None]
        if endless:
            raise ValueError(
                f"a grid needs single values, and {', '.join(endless)} is a range without steps; list values "
                "(lr=1e-5,3e-5) or sample the range (search=random, search=bayes)"
            )
        for base in combinations(self.always):
            inner = {k: d for condition in self.when if condition.met(base) for k, d in condition.dimensions.items()}
            yield from (base | more for more in combinations(inner))

    def size(self) -> int | None:
        """How many configurations there are; None where there is no end of them."""
        if any(found.points() is None for found in self.all().values()):
            return None
        return sum(1 for _ in self.grid())


def combinations(dimensions: Mapping[str, Dimension]) -> Iterator[Params]:
    """Every combination of the values of several settings; one empty combination of none."""
    points = [found.points() or () for found in dimensions.values()]
    for values in product(*points):
        yield dict(zip(dimensions, values, strict=True))


def build_space(params: Mapping[str, Any], when: Mapping[str, Any], defaults: Mapping[str, Any]) -> Space:
    """The space that a config describes.

    Args:
        params: Hydra's words or a list of values, by setting.
        when: The same, by `key=value` of the setting they depend on.
        defaults: The value of each setting without a search.

    Raises:
        ValueError: Naming every fault, one a line.
    """
    faults: list[str] = []

    def read(block: Mapping[str, Any]) -> dict[str, Dimension]:
        found: dict[str, Dimension] = {}
        for key, words in block.items():
            if words is None:  # a setting of a shipped space that the user takes out: search.space.params.lr=null
                continue
            try:
                found[key] = parse_dimension(key, words, defaults.get(key))
            except ValueError as fault:
                faults.append(str(fault))
        return found

    always = read(params)
    conditions = []
    for test, block in when.items():
        key, equals, text = str(test).partition("=")
        if not equals or key not in params or not isinstance(block, Mapping):
            faults.append(
                f"search.space.when: '{test}' must be KEY=VALUE of a setting that varies, with settings below it"
            )
            continue
        value = stored_value(key, text)
        if key in always and not always[key].holds(value):
            faults.append(f"search.space.when: {key} never is {text}; it is {always[key].told()}")
        if twice := sorted(set(block) & set(params)):
            faults.append(f"search.space.when.{test}: {', '.join(twice)} varies everywhere already; name it once")
        conditions.append(Condition(key, value, read(block)))
    faults += conflicting_kinds(conditions)
    if not params:
        faults.append(
            "nothing varies: give several values (lr=1e-5,3e-5), a range (lr=interval(1e-5,1e-3)) or search/space=NAME"
        )
    if faults:
        raise ValueError("\n".join(faults))
    return Space(always, tuple(conditions))


def conflicting_kinds(conditions: Sequence[Condition]) -> list[str]:
    """Settings that are a list under one condition and a range under another, or ranges on different scales."""
    kinds: dict[str, dict[tuple[str, bool, bool], str]] = {}
    for condition in conditions:
        for key, found in condition.dimensions.items():
            kind = ("list", False, False) if isinstance(found, Choice) else ("range", found.integer, found.log)
            kinds.setdefault(key, {}).setdefault(kind, condition.named)
    return [
        f"search.space.when: {key} is of one kind under {' and of another under '.join(seen.values())}; a study keeps "
        "one kind for a name: list values everywhere, or give ranges on the same scale (tag(log,interval(...)))"
        for key, seen in kinds.items()
        if len(seen) > 1
    ]


def space_as_dict(space: Space) -> dict[str, dict[str, Any]]:
    """Every setting of a space: its ends and its scale, or its values with their texts on a command line.

    One that only some configurations have says so under `when`.
    """
    found = {key: dimension_as_dict(dimension) for key, dimension in space.all().items()}
    for condition in space.when:
        for key in condition.dimensions:
            found[key].setdefault("when", f"{condition.key}={condition.value}")
    return found


def dimension_as_dict(found: Dimension) -> dict[str, Any]:
    """One setting."""
    if isinstance(found, Choice):
        return {"values": list(found.values), "texts": list(found.texts)}
    return {"low": found.low, "high": found.high, "integer": found.integer, "log": found.log}
