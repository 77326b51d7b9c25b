"""Every example in a docstring gives what it says."""

import doctest
from importlib import import_module

from support.paths import ROOT

SRC = ROOT / "src"
MODULES = sorted(
    ".".join(path.relative_to(SRC).with_suffix("").parts)
    for path in (SRC / "tunelab").rglob("*.py")
    if ">>> " in path.read_text()
)


def test_every_example_in_a_docstring_holds() -> None:
    results = {module: doctest.testmod(import_module(module)) for module in MODULES}

    assert sum(result.attempted for result in results.values()) > 20  # the examples are there at all
    assert not [module for module, result in results.items() if result.failed]
