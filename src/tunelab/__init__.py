"""TuneLab: fine-tune language models and find out, with evidence, which hyper-parameters matter.

From Python: `from tunelab import train, search, load`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunelab.api import Run, Study, Trial, load, search, train

__version__ = "0.1.0"
__all__ = ["Run", "Study", "Trial", "load", "search", "train"]


def __getattr__(name: str) -> Any:
    """A function or class of `tunelab.api`, imported when it is first used, so that the command line starts fast."""
    if name in __all__:
        from tunelab import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
