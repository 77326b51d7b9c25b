"""Errors that a user can cause or meet.  Each message says what is wrong, the value, why it matters and what to try."""

from collections.abc import Sequence


def first_line(fault: BaseException) -> str:
    """The first line of an error's text; its type where it says nothing."""
    return (str(fault).strip() or type(fault).__name__).splitlines()[0]


class TuneLabError(Exception):
    """An error that is printed as one message, without a traceback.

    Attributes:
        exit_status: What the process returns to the shell.
    """

    exit_status = 1


class ConfigError(TuneLabError):
    """The settings cannot be used."""

    exit_status = 2

    @classmethod
    def listing(cls, faults: Sequence[str]) -> "ConfigError":
        """One error that names every fault at once, a line each."""
        return cls("cannot run this:\n" + "\n".join(f"  - {fault}" for fault in faults))


class DataError(TuneLabError):
    """The data cannot be used; the message names file and line where there is one."""

    exit_status = 2

    @classmethod
    def listing(cls, faults: Sequence[str]) -> "DataError":
        """One error that names every fault at once, a line each."""
        return cls("cannot use these data:\n" + "\n".join(f"  - {fault}" for fault in faults))


class Pruned(TuneLabError):
    """The search stopped this trial early, because others are better; that is no failure."""

    exit_status = 0


class Diverged(TuneLabError):
    """The loss or a weight became NaN or Inf; such a model is never kept as best."""
