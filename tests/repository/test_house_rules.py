"""The rules of the house that no other tool checks: names that say something, every setting explained."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from support.paths import ROOT
from tunelab.cli.config_comments import config_keys, headline

SRC = ROOT / "src"
MODULES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml"))

# Put together here, so that this file passes its own test.
PACKAGE_INDEXES = "|".join(["pypi" + r"\.org", "python" + "hosted", "download" + r"\.pytorch", "anaconda" + r"\.org"])
PLACES = "|".join(rf"(?<![\w.}}/~-])/{top}/" for top in ("root", "work", "opt", "mnt"))


def tracked() -> list[Path]:
    """Files that git knows or would add."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no git checkout, so nothing tells tracked files from leftovers")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """The text of a file; empty for data and weights."""
    if path.suffix in {".jsonl", ".json", ".csv", ".safetensors", ".parquet", ".png", ".svg"}:
        return ""
    return path.read_text(encoding="utf-8", errors="ignore")


# Each rule is one test that names every offender: a test for each of some hundred files costs more than the check.
def test_no_module_is_named_after_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc"}

    assert not [module for module in MODULES if set(Path(module).with_suffix("").parts) & empty]


VAGUE = {"found", "wanted", "told", "shown", "asked", "given"}


def vague_names(module: str) -> list[str]:
    """Names in a file that say only that something happened: functions, classes, arguments, attributes, variables."""
    names: list[str] = []
    for node in ast.walk(ast.parse((SRC / module).read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                names.append(name)
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.ExceptHandler(name=str(name)):
                names.append(name)
    return [f"{module}: {name}" for name in dict.fromkeys(names) if name.strip("_").lower() in VAGUE]


def test_a_name_says_what_the_thing_is() -> None:
    vague = [name for module in MODULES for name in vague_names(module)]

    assert not vague, "say what it is (rows, faults, match, ...):\n" + "\n".join(vague)


def without_docstring(module: str) -> list[str]:
    """Functions and classes of a file that others may call (top level, no leading underscore) and that say nothing."""
    tree = ast.parse((SRC / module).read_text())
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    bare = [f"{module}: {node.name}" for node in public if not ast.get_docstring(node)]
    return bare if not public or ast.get_docstring(tree) else [f"{module}: the file itself", *bare]


def test_every_public_function_and_class_has_a_docstring() -> None:
    assert not [bare for module in MODULES for bare in without_docstring(module)]


def test_every_key_says_what_changing_it_does() -> None:
    bare = [
        f"{config}: explain {key.name}"
        for config in CONFIGS
        for key in config_keys((ROOT / config).read_text())
        if not key.note and not key.name.split(".")[-1].startswith("_")
    ]

    assert not bare, "\n".join(bare)


def test_every_config_file_opens_with_what_it_is_for() -> None:
    assert not [config for config in CONFIGS if not headline((ROOT / config).read_text())]


def test_no_tracked_file_names_a_package_index_or_a_place_on_one_machine() -> None:
    pattern = re.compile(f"{PACKAGE_INDEXES}|{PLACES}")

    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in tracked()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if pattern.search(line)
    ]

    assert not found, "\n".join(found)


def test_the_pinned_versions_are_plain_names_and_numbers() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    odd = [line for line in lines if not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]

    assert not odd  # a local version such as 2.13.0+cpu, or an address, would tie the project to one machine


def test_every_make_target_is_explained_by_make_help() -> None:
    # Given the targets that the Makefile declares
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared

    # When `make` is asked what it can do
    shown = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT)], capture_output=True, text=True, check=True
    )

    # Then every one has its line
    assert re.findall(r"^  make (\S+) +\S", shown.stdout, re.MULTILINE) == declared[1].split()


BLOCK_NAMES = (
    "eval model data optimizer scheduler regularization adapter trainer callbacks logger search trial cv"
).split()


def test_settings_are_read_by_attribute() -> None:
    """A block of a typed config is never subscripted by a string, nor asked with .get: its fields have types."""
    found = []
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            block = node.value if isinstance(node, ast.Subscript) else None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                block = node.func.value
            if (
                isinstance(block, ast.Attribute)
                and block.attr in BLOCK_NAMES
                and (named := ast.unparse(block.value)).rpartition(".")[2] in ("settings", "run_config")
            ):
                found.append(f"{path.relative_to(SRC)}:{block.lineno}: {named}.{block.attr}")
    assert not found


def test_the_config_package_promises_types() -> None:
    """No public annotation of config/ is Any: a value of a config is a JsonValue until a block gives it a type."""
    loose = []
    for path in (SRC / "tunelab" / "config").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                hints = [entry.annotation for entry in ast.walk(node) if isinstance(entry, ast.arg | ast.AnnAssign)]
                hints += [node.returns] if isinstance(node, ast.FunctionDef) else []
                loose += [f"{path.name}:{node.name}" for hint in hints if hint and "Any" in ast.unparse(hint)]
    assert not loose
