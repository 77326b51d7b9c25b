"""Hyper-parameter search: suggest a configuration, train it, report its score.  One engine behind every `-m`."""

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """This package, which is called as the function `tunelab.search` too.

    Python binds a package's name in its parent as soon as anything in it is imported; both meanings have to hold then.
    """

    def __call__(self, *overrides: str, **settings: Any) -> Any:
        """The finished study; see `tunelab.api.search`."""
        from tunelab.api import search

        return search(*overrides, **settings)


sys.modules[__name__].__class__ = _CallableModule
