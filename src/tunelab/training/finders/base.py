"""The result of a finder: one value, the reasons in words, and the figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunelab.report.document import Block


@dataclass(frozen=True)
class FinderResult:
    """A value that was looked for.

    Attributes:
        setting: Its key on the command line.
        value: What is suggested; None where nothing can be.
        reasons: The reasons, a sentence each.
        numbers: All that was measured, plain.
        figures: Charts and tables of the page.
    """

    setting: str
    value: float | int | None
    reasons: Sequence[str]
    numbers: Mapping[str, Any]
    figures: Sequence[Block]

    @property
    def override(self) -> str:
        """The override to train with; empty where there is none."""
        if self.value is None:
            return ""
        return f"{self.setting}={self.value:.2g}" if isinstance(self.value, float) else f"{self.setting}={self.value}"
