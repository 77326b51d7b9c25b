"""The messages that are translated: calls of `translate` and `message`, `_()` in templates, and what --help prints."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml
from jinja2 import Environment
from jinja2.ext import extract_from_ast

from support.paths import ROOT
from tunelab.cli.config_comments import group_options, top_level_keys

PACKAGE = ROOT / "src" / "tunelab"
MARKS = ("translate", "message", "messages")
COUNTS = {"format_count": "{noun}s", "count_rows": "{noun}s", "count_phrase": "{noun}s that are"}  # and their plurals


class Message(NamedTuple):
    """A message and its place in the source; without a text where the argument is no literal."""

    text: str | None
    place: str


@cache
def messages() -> list[Message]:
    """Every message of modules and templates."""
    modules = [found for path in sorted(PACKAGE.rglob("*.py")) for found in messages_of_module(path)]
    templates = [found for path in sorted(PACKAGE.rglob("*.html")) for found in messages_of_template(path)]
    return [*modules, *templates, *messages_of_help()]


def messages_of_help() -> Iterator[Message]:
    """What `--help` prints of conf/: the first line of each option, the comment of each key, its head and its foot."""
    conf = ROOT / "conf"
    yield from (Message(one.note, f"conf/{one.group}/{one.name}.yaml") for one in group_options(conf))
    yield from (Message(key.note, f"conf/config.yaml: {key.name}") for key in top_level_keys(conf))
    page = yaml.safe_load((conf / "hydra" / "help" / "tunelab.yaml").read_text(encoding="utf-8"))
    yield from (Message(page[part].strip(), "conf/hydra/help/tunelab.yaml") for part in ("header", "footer"))


def messages_of_module(path: Path) -> Iterator[Message]:
    """Messages of a Python file; a look-up by name or in a table is left out, as its texts are marked by `message`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(node, "func", None)
        if not isinstance(node, ast.Call) or not isinstance(name, ast.Name):
            continue
        where = f"{path.relative_to(ROOT)}:{node.lineno}"
        if name.id in MARKS:
            texts = [text for argument in node.args for text in literal_texts(argument)] if node.args else [None]
            yield from (Message(text, where) for text in texts)
        elif name.id in COUNTS:
            yield from (Message(text, where) for text in counted_nouns(node, COUNTS[name.id]))


def messages_with_values() -> Iterator[tuple[str, set[str], str]]:
    """Messages that are filled in where they are used: the text, the names of its values, and the place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "func", None)
            if isinstance(node, ast.Call) and isinstance(name, ast.Name) and name.id == "translate" and node.keywords:
                names = {keyword.arg or "" for keyword in node.keywords}
                for text in filter(None, literal_texts(node.args[0])):
                    if "" not in names:  # `**values`, whose names are known when it runs
                        yield text, names, f"{path.relative_to(ROOT)}:{node.lineno}"


def counted_nouns(call: ast.Call, plural: str) -> Iterator[str]:
    """The two messages of a count with its noun: for one, and for several."""
    nouns = [value.value for value in call.args[1:] if isinstance(value, ast.Constant)] or ["row"]
    single = f"{nouns[0]} that is" if plural.endswith("that are") else nouns[0]
    yield "{count:,} " + single
    yield "{count:,} " + (nouns[1] if len(nouns) > 1 else plural.format(noun=nouns[0]))


def literal_texts(node: ast.expr) -> Iterator[str | None]:
    """The texts that an argument may be: a literal, or a choice of literals; None for a text that is put together."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp():
            yield from [*literal_texts(node.body), *literal_texts(node.orelse)]
        case ast.JoinedStr() | ast.BinOp():
            yield None


def messages_of_template(path: Path) -> Iterator[Message]:
    """Messages of a template: `{{ _("...") }}`."""
    tree = Environment().parse(path.read_text(encoding="utf-8"))
    for line, _, text in extract_from_ast(tree, gettext_functions=("_",)):
        literal = text[0] if isinstance(text, tuple) else text  # the others are values of its placeholders
        yield Message(literal if isinstance(literal, str) else None, f"{path.relative_to(ROOT)}:{line}")
