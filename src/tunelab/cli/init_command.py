"""`tunelab init`: a small project of one's own, with an experiment, a callback, a metric and a test."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from tunelab.language.translation import message, translate

EPILOG = message("""
Writes conf/ with an experiment, a package with a callback and a metric, records, a test, a Makefile and a README. Then
  cd DIR
  make train      or: tunelab train --config-dir conf plugins=[NAME] experiment=first
  make test
""")
TEMPLATE = Path(__file__).parent / "project_template"
PLACEHOLDER = "PACKAGE"  # in the text of the files
PACKAGE_FOLDER = "package"
RECORDS = Path("data") / "reviews.csv"
MOODS = {"1": "dull weak slow poor", "2": "fair plain calm mixed", "3": "bright strong quick great"}  # stars: words
THINGS = "film song book play game meal walk trip show talk".split()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab init`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help=translate("where the project goes: a new or empty folder")
    )
    parser.add_argument("--package", metavar="NAME", help=translate("name of the package in it (the name of DIR)"))


def run(arguments: argparse.Namespace) -> int:
    """Write the project and print what to type next; nothing is ever replaced."""
    from tunelab.errors import ConfigError
    from tunelab.runs import console

    folder: Path = arguments.folder
    name = arguments.package or folder.absolute().name.replace("-", "_").lower()
    if not name.isidentifier() or not name.islower() or name in ("tunelab", "tests", "conf", "data"):
        raise ConfigError(
            translate(
                "'{name}' can be no package's name: take small letters, digits and _, as --package my_lab", name=name
            )
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            translate("{folder} is not empty, and nothing in it is to be replaced; give a new folder", folder=folder)
        )
    for path, text in project_files(name):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    console.say(translate("a project of your own: {folder}", folder=folder))
    words = f"cd {folder} && tunelab train --config-dir conf plugins=[{name}] experiment=first"
    console.show_command("next", words)
    return 0


def project_files(name: str) -> Iterator[tuple[Path, str]]:
    """The files of a project: path inside it, and text.

    Args:
        name: Of its package.
    """
    for source in sorted(TEMPLATE.rglob("*.txt")):
        path = source.relative_to(TEMPLATE).with_suffix("")
        parts = [name if part == PACKAGE_FOLDER else part for part in path.parts]
        target = Path(".gitignore") if path.name == "gitignore" else Path(*parts)
        yield target, source.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
    yield RECORDS, records_text()


def records_text() -> str:
    """Reviews with one to three stars, whose words say which."""
    rows = [
        f"a {first} and {second} {thing},{stars}"
        for thing in THINGS
        for stars, words in MOODS.items()
        for first in words.split()[:2]
        for second in words.split()[2:]
    ]
    return "\n".join(["review,stars", *rows]) + "\n"
