"""Packages imported without what they bring and nobody here uses."""

import sys
from types import ModuleType

UNUSED = "scipy.signal"  # with scipy.stats and a dozen more: a fifth of the time until Lightning is there


def import_torchmetrics() -> None:
    """Import torchmetrics without SciPy's signal processing.

    It imports that for one line alone, which gives `scipy.signal` the name `hamming` for a metric of speech.  A module
    that has the name stands in meanwhile; whoever imports `scipy.signal` later gets it.
    """
    if "torchmetrics" in sys.modules or UNUSED in sys.modules:
        return
    before = set(sys.modules)
    sys.modules[UNUSED] = stand_in = ModuleType(UNUSED)
    stand_in.hamming = None  # type: ignore[attr-defined]
    try:
        import torchmetrics  # noqa: F401
    except (ImportError, AttributeError):  # another release, that does use it: it is imported whole
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "torchmetrics":
                del sys.modules[name]
    finally:
        if sys.modules.get(UNUSED) is stand_in:
            del sys.modules[UNUSED]
        scipy = sys.modules.get("scipy")
        if scipy is not None and vars(scipy).get("signal") is stand_in:
            del scipy.signal
