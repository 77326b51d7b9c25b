"""The help page says what the comments in conf/ say, for the run that the command line asks for."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from tunelab.cli.config_comments import ConfigKey, config_keys, default_choices, group_options, headline
from tunelab.cli.help_page import WIDTH, groups_table, keys_table, render_help

FILES = {
    "config.yaml": """\
# One run.
defaults:
  - _self_
  - data: answers
  - optimizer: adamw # the usual one
  - callbacks: [early, late]
  - optional experiment: null
  - override hydra/help: tunelab

lr: ??? # peak learning rate; every optimizer reads it as ${lr}
batch_size: 16 # sequences per optimizer step
resume: null # folder of a run to go on with
mark: "#" # what stands before a heading
# repeats a run to the last bit, and is slower
exact: false
eval:
  rows: 64 # rows scored at once

hydra:
  job:
    chdir: false # stay where we are
""",
    "optimizer/adamw.yaml": "# @package _global_\n\n# Adam with decoupled weight decay.\nlr: 2e-5 # small\n",
    "optimizer/sgd.yaml": "# @package _global_\n# Plain gradient descent.\nlr: 1e-2 # large\n",
    "data/answers.yaml": "# Instructions and answers.\n# A second line.\ntask: instruction # the kind of work\n",
    "callbacks/early.yaml": "# Stops early.\npatience: 3 # epochs\n",
    "callbacks/late.yaml": "# Stops late.\nlimit: 3 # hours\n",
    "experiment/quick.yaml": "# @package _global_\n# A quick look.\nbatch_size: 4 # small\n",
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A small config tree with the help page of the project."""
    page_file = "hydra/help/tunelab.yaml"
    for name, text in {**FILES, page_file: (ROOT / "conf" / page_file).read_text()}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_every_option_is_listed_and_the_default_is_marked(conf: Path) -> None:
    found = {(option.group, option.name): option.chosen for option in group_options(conf)}

    assert found == {
        ("callbacks", "early"): True,
        ("callbacks", "late"): True,
        ("data", "answers"): True,
        ("experiment", "quick"): False,
        ("optimizer", "adamw"): True,
        ("optimizer", "sgd"): False,
    }


def test_the_defaults_list_ends_where_the_next_key_begins(conf: Path) -> None:
    # Given a setting below the list that looks like a choice
    with (conf / "config.yaml").open("a") as file:
        file.write("later:\n  - optimizer: sgd # no choice\n")

    assert default_choices(conf)["optimizer"] == ["adamw"]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("# What it is for.\n# More.\nkey: 1\n", "What it is for."),
        ("# @package _global_\n# What it is for.\n", "What it is for."),
        ("\n# What it is for.\n", "What it is for."),
        ("key: 1\n# Too late.\n", ""),
        ("", ""),
    ],
    ids=["first line", "after the package line", "after a blank line", "below a key", "empty file"],
)
def test_the_headline_is_the_first_comment_before_any_key(text: str, note: str) -> None:
    assert headline(text) == note


def test_keys_carry_their_comment_from_beside_or_above(conf: Path) -> None:
    found = config_keys((conf / "config.yaml").read_text())

    assert found == [
        ConfigKey("lr", "???", "peak learning rate; every optimizer reads it as ${lr}"),
        ConfigKey("batch_size", "16", "sequences per optimizer step"),
        ConfigKey("resume", "null", "folder of a run to go on with"),
        ConfigKey("mark", '"#"', "what stands before a heading"),
        ConfigKey("exact", "false", "repeats a run to the last bit, and is slower"),
        ConfigKey("eval.rows", "64", "rows scored at once"),
        ConfigKey("hydra.job.chdir", "false", "stay where we are"),
    ]


def test_a_comment_above_one_key_does_not_leak_to_the_next() -> None:
    assert [key.note for key in config_keys("# Explained.\na: 1\nb: 2\n")] == ["Explained.", ""]


def test_the_tables_show_the_files_as_they_are(conf: Path) -> None:
    assert "  optimizer  * adamw    Adam with decoupled weight decay." in groups_table(conf).splitlines()
    assert "               sgd      Plain gradient descent." in groups_table(conf).splitlines()
    assert "  batch_size 16     sequences per optimizer step" in keys_table(conf).splitlines()
    assert "chdir" not in keys_table(conf)


def test_the_page_follows_the_command_line(conf: Path) -> None:
    # When SGD and a smaller batch are set
    shown = render_help(conf, ["optimizer=sgd", "experiment=quick"])

    # Then the page marks them and tells the values they bring
    rows = [line.split(maxsplit=3) for line in shown.splitlines()]
    assert ["*", "sgd", "Plain", "gradient descent."] in rows
    assert ["lr", "0.01", "peak", "learning rate; every optimizer reads it as ${lr}"] in rows
    assert ["batch_size", "4", "sequences", "per optimizer step"] in rows
    assert ["optimizer", "adamw", "Adam", "with decoupled weight decay."] in rows


def test_several_options_of_one_group_are_all_marked(conf: Path) -> None:
    rows = [line.split() for line in render_help(conf).splitlines()]

    assert ["callbacks", "*", "early", "Stops", "early."] in rows
    assert ["*", "late", "Stops", "late."] in rows


def test_a_long_comment_goes_on_below_itself(conf: Path) -> None:
    # Given a comment of two hundred characters and a name of sixty
    words = "word " * 40
    with (conf / "config.yaml").open("a") as file:
        file.write(f"a: 1 # {words}\n{'n' * 60}: 1 # {words}\n")

    # Then no word is lost and no line is too long
    shown = keys_table(conf)
    assert shown.count("word") == 80
    assert max(map(len, shown.splitlines())) <= WIDTH


def test_the_page_of_this_project_fits_and_names_the_four_ways_to_preview() -> None:
    shown = render_help(ROOT / "conf")

    assert max(map(len, shown.splitlines())) <= WIDTH
    for flag in ("--help", "--cfg job", "--info defaults-tree", '"$(python train.py -sc install=bash)"'):
        assert flag in shown
    for option in group_options(ROOT / "conf"):
        assert option.name in shown


def test_asking_for_help_loads_no_framework() -> None:
    # When the command line is asked what it can do
    command = [sys.executable, "-X", "importtime", "train.py", "--help", "optimizer=sgd"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    # Then the page is ours, and nothing that takes seconds was imported to print it
    assert "CHOOSE   group=option" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in loaded  # the listing itself works
    assert not loaded & {"torch", "transformers", "lightning", "wandb", "datasets", "optuna"}
