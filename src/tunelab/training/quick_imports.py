"""Packages imported without those parts of SciPy that they bring and nobody here uses.

Together these are a twelfth of the time until packages are there.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

HAMMING = "scipy.signal"  # torchmetrics gives it that name, for a metric of speech
ASSIGNMENT = "scipy.optimize"  # losses of object detection in transformers take one function of it


def import_torchmetrics() -> None:
    """Import torchmetrics without SciPy's signal processing; whoever imports that later gets it."""
    with put_off(HAMMING, hamming=None):
        import_module("torchmetrics")


def import_transformers() -> None:
    """Import what every model of transformers needs without SciPy's optimization, which is there once it is called."""

    def linear_sum_assignment(*values: Any, **options: Any) -> Any:
        """What SciPy's function of that name returns; it is imported here, at the first call."""
        function: Callable[..., Any] = import_module(ASSIGNMENT).linear_sum_assignment
        return function(*values, **options)

    with put_off(ASSIGNMENT, linear_sum_assignment=linear_sum_assignment):
        import_module("transformers.modeling_utils")


@contextmanager
def put_off(name: str, **names: object) -> Iterator[None]:
    """Within it a module is not imported: one that has the names stands in, and any other name imports it after all.

    Args:
        name: Of the module, inside a package; nothing is done where it is there already.
        names: What it is asked for by those who do not use it.
    """
    if name in sys.modules:
        yield
        return
    package, _, inner = name.rpartition(".")
    stand_in = ModuleType(name)

    def leave() -> None:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        parent = sys.modules.get(package)
        if parent is not None and vars(parent).get(inner) is stand_in:
            delattr(parent, inner)

    def import_after_all(other: str) -> Any:
        if other.startswith("__"):  # what the import system itself looks for
            raise AttributeError(other)
        leave()
        return getattr(import_module(name), other)

    vars(stand_in).update(names, __getattr__=import_after_all)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        leave()
