"""What our loggers share: no name of their own, no second copy of the config, no fault that ends a training."""

import logging
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from typing_extensions import override

from tunelab.tracking.redact import redact

_told = logging.getLogger(__name__)


class Nameless(Logger):
    """A logger whose name and version are in no checkpoint's path, and that is given the config when it is made."""

    @property
    @override
    def name(self) -> str | None:
        return None  # a name would become part of the checkpoint path

    @property
    @override
    def version(self) -> str | None:
        return None

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass  # known from the start, or in config.yaml


class Guarded(Nameless):
    """A tracker of another project: what it meets must not end a training, since metrics.csv holds the same curves.

    Args:
        title: What the tracker is called in a message.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._warned = False

    def guard(self, what: str, action: Callable[[], Any]) -> None:
        """Do something with the tracker; the first fault is told, later ones are not."""
        try:
            action()
        except Exception as fault:
            if not self._warned:
                self._warned = True
                consequence = "training goes on, metrics.csv is complete"
                _told.warning("%s %s failed (%s); %s", self._title, what, first_line(fault), consequence)


def first_line(fault: Exception) -> str:
    """A fault in one line, without secrets."""
    text = str(fault).strip().splitlines()
    return redact(f"{type(fault).__name__}: {text[0]}" if text else type(fault).__name__)  # type: ignore[no-any-return]
