"""The tables of README.md beside this file, written anew by the scripts that measure them."""

from collections.abc import Sequence
from pathlib import Path


def renew_table(mark: str, table: Sequence[str]) -> None:
    """Replace the lines between two marks of README.md.

    Args:
        mark: The comment that stands before and behind the table.
        table: Its lines.
    """
    readme = Path(__file__).with_name("README.md")
    head, _, rest = readme.read_text(encoding="utf-8").partition(mark)
    tail = rest.partition(mark)[2]
    readme.write_text(f"{head}{mark}\n" + "\n".join(table) + f"\n{mark}{tail}", encoding="utf-8")
