"""The space of a search: which settings vary, within what, and which of them only where another has a certain value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from tunelab.search.dimension import Choice, Dimension, Scalar, Suggests
from tunelab.search.grammar import dimension, stored

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

    def suggest(self, trial: Suggests) -> Params:
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
                found[key] = dimension(key, words, defaults.get(key))
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
        value = stored(key, text)
        if key in always and not always[key].holds(value):
            faults.append(f"search.space.when: {key} never is {text}; it is {always[key].told()}")
        if twice := sorted(set(block) & set(params)):
            faults.append(f"search.space.when.{test}: {', '.join(twice)} varies everywhere already; name it once")
        conditions.append(Condition(key, value, read(block)))
    faults += unlike(conditions)
    if not params:
        faults.append(
            "nothing varies: give several values (lr=1e-5,3e-5), a range (lr=interval(1e-5,1e-3)) or search/space=NAME"
        )
    if faults:
        raise ValueError("\n".join(faults))
    return Space(always, tuple(conditions))


def unlike(conditions: Sequence[Condition]) -> list[str]:
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
