"""TAB in a shell: commands, options, groups, settings, values and runs, in a real bash and without torch or Hydra."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser

from support.paths import ROOT
from tunelab.cli.completion import (
    TRAIN_FLAGS,
    CommandLine,
    candidates,
    complete_line,
    config_places,
    group_names,
    setting_keys,
)
from tunelab.cli.completion_command import SCRIPTS
from tunelab.cli.config_comments import group_options
from tunelab.cli.help_page import groups_table
from tunelab.cli.main import COMMANDS, COMPLETION, command_parser, load_command, parse_arguments
from tunelab.config.overrides import separate_faulty
from tunelab.config.resource_paths import conf_directory
from tunelab.config.schema import value_fault

Complete = Callable[[str], list[str]]
BASH = shutil.which("bash")


def texts(line: str) -> list[str]:
    """The candidates for the last word of a line."""
    parsed = CommandLine.parse(line)
    assert parsed is not None
    return [one.text for one in candidates(parsed.before, parsed.current)]


@pytest.fixture
def bash(tmp_path: Path) -> Complete:
    """What a real bash has in COMPREPLY after TAB at the end of a line; in an empty folder."""
    if BASH is None:
        pytest.skip("there is no bash here")
    program = tmp_path / "bin" / "tunelab"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c 'from tunelab.cli.main import main; main()' \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "script").write_text(SCRIPTS["bash"])
    place = tmp_path / "here"
    place.mkdir()

    def press(line: str) -> list[str]:
        # readline breaks words at = and : as well
        last = line.replace("\\ ", "\0").replace("=", " ").replace(":", " ").split(" ")[-1].replace("\0", "\\ ")
        code = (
            'source "$1"; COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=($2) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n'
            'function=$(complete -p tunelab); function=${function#*-F }; ${function%% *} tunelab "$3" ""\n'
            'for reply in "${COMPREPLY[@]}"; do echo "$reply"; done'
        )
        environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            [str(BASH), "-c", code, "bash", str(tmp_path / "script"), line, last],
            cwd=place, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert not done.stderr
        return done.stdout.splitlines()

    return press


def test_bash_completes_options_keys_and_values(bash: Complete) -> None:
    assert bash("tunelab pre") == ["preview", "predict"]
    assert "adamw" in bash("tunelab train optimizer=ad")  # bash replaces what stands behind = only
    assert bash("tunelab train eval.gen") == ["eval.generate=", "eval.generate_rows="]
    assert bash("tunelab export --for") == ["--format"]


def test_bash_completes_paths_with_spaces(bash: Complete, tmp_path: Path) -> None:
    (tmp_path / "here" / "my rows.jsonl").write_text("")

    assert bash("tunelab train data.train=my") == ["my\\ rows.jsonl"]
    assert bash("tunelab train data.train=my\\ ro") == ["my\\ rows.jsonl"]
    assert bash("tunelab predict runs --input my\\ r") == ["my\\ rows.jsonl"]


def test_words_that_a_caller_left_whole_or_without_a_line_are_completed_too() -> None:
    assert "optimizer=adamw" in complete_line("tunelab train optimizer=ad", "optimizer=ad")
    assert "adamw" in complete_line("tunelab train optimizer=", "=")
    assert complete_line("tunelab train 'optimizer=ad", "ad") == []  # within quotes shells differ


def test_the_first_word_is_a_command() -> None:
    assert set(texts("tunelab ")) == set(COMMANDS)
    assert texts("tunelab --lang zh pred") == ["predict"]
    assert texts("tunelab --lang ") == ["en", "zh"]
    assert texts("tunelab nonsense ") == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_every_option_of_a_command_is_a_candidate(command: str) -> None:
    options = {option for action in command_parser(command)._actions for option in action.option_strings}

    assert options == set(texts(f"tunelab {command} -"))


def test_values_of_options_are_completed() -> None:
    assert texts("tunelab preview --split ") == ["train", "validation", "test"]
    assert texts("tunelab export RUN --format=me") == ["--format=merged"]
    assert texts("tunelab ensemble --top ") == []  # a number


def test_every_flag_of_a_training_is_one() -> None:
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    ours = {"--lang", "--debug", "--verbose", "-v"}  # which launch.py takes before Hydra

    assert set(TRAIN_FLAGS) - ours <= known
    assert texts("tunelab train --cfg ") == ["job", "hydra", "all"]


def test_a_group_offers_its_options_one_or_several() -> None:
    assert "optimizer=muon" in texts("tunelab train optimizer=")
    assert texts("tunelab train regularization=[l2,dr") == ["regularization=[l2,dropout"]
    assert texts("tunelab train -m optimizer=adamw,sg") == ["optimizer=adamw,sgd"]
    assert "experiment=recipes/minilm_labels" in texts("tunelab train experiment=rec")
    assert "search/space=sft" in texts("tunelab train search/space=")
    assert not [text for text in texts("tunelab train search=") if "space" in text]


def test_a_folder_of_options_of_ones_own_counts(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n# Mine.\nlr: 1e-3 # high\n")

    assert texts(f"tunelab train --config-dir {tmp_path} experiment=mi") == ["experiment=mine"]
    assert texts(f"tunelab train hydra.searchpath=[file://{tmp_path}] experiment=mi") == ["experiment=mine"]


def test_keys_are_completed_one_level_at_a_time() -> None:
    assert "lr=" in texts("tunelab train l")
    assert texts("tunelab train cv.") == ["cv.folds=", "cv.fold=", "cv.group="]
    assert texts("tunelab train ~cv.fol") == ["~cv.folds", "~cv.fold"]
    assert texts("tunelab train ++cv.folds") == ["++cv.folds="]
    assert "search." in texts("tunelab train sea") and "search.space." in texts("tunelab train search.")


def test_a_key_that_another_block_has_is_offered_where_no_key_begins_so() -> None:
    # weight decay is no argument of an optimizer here
    assert "regularization.weight_decay=" in texts("tunelab train optimizer.weight")
    assert texts("tunelab train optimizer.nonsense") == []


def test_values_are_completed_where_they_are_few() -> None:
    assert texts("tunelab train mode=") == ["mode=auto", "mode=min", "mode=max"]
    assert texts("tunelab train test=") == ["test=true", "test=false"]
    assert "find=null" in texts("tunelab train find=")
    assert texts("tunelab train lr=") == []


def test_every_value_that_is_offered_is_legal() -> None:
    keys = [text for text in texts("tunelab train eval.") + texts("tunelab train data.") + texts("tunelab train ")]
    words = [word for key in keys if key.endswith("=") for word in texts(f"tunelab train {key}")]
    groups = tuple(f"{group}=" for group in ("experiment", "debug"))
    pairs = [word.partition("=") for word in words if not word.startswith(groups)]
    typed = {"true": True, "false": False, "null": None}

    assert not [fault for key, _, text in pairs if (fault := value_fault(key, typed.get(text, text)))]


def leaves(values: Mapping[str, object], above: str = "") -> Iterator[str]:
    """Dotted names of a composed config, empty blocks included."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


LINES = [
    [],
    ["optimizer=muon"],
    ["model=scratch_deep_narrow", "data=classification", "adapter=lora"],
    ["optimizer=schedule_free_adamw", "search=bayes", "search/space=lora"],
    ["experiment=starter_pretrain", "trainer=fsdp_cpu", "regularization=[strong,ema]", "logger=[csv,tensorboard]"],
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_the_keys_are_those_that_hydra_composes(words: list[str]) -> None:
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", overrides=words), resolve=False)
    assert isinstance(composed, dict)

    expected = set(leaves({str(key): value for key, value in composed.items()}))
    offered = {key.name for key in setting_keys(config_places(words), words) if not key.name.startswith("hydra.")}
    blocks = {name.rsplit(".", count)[0] for name in expected for count in range(1, 4)}  # such as {rank: 4} in one line
    unsaid = ("metrics", "logger.kinds.", "search.space.params.")  # an empty block, a table of ours, names with dots

    assert offered <= expected | blocks
    assert not [name for name in expected - offered if not name.startswith((*unsaid, *(f"{one}." for one in offered)))]


def test_runs_and_searches_are_completed_where_a_command_takes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, file in (("default/a", "run.json"), ("sweeps/s", "trials.jsonl"), ("sweeps/s/0", "run.json")):
        (tmp_path / "outputs" / folder).mkdir(parents=True)
        (tmp_path / "outputs" / folder / file).write_text("{}")
    (tmp_path / "outputs" / "default" / "a" / "checkpoints").mkdir()
    (tmp_path / "elsewhere").mkdir()

    assert texts("tunelab report ") == ["outputs/default/a", "outputs/sweeps/s"]
    assert texts("tunelab report outputs/default/a outputs/sw") == ["outputs/sweeps/s"]
    assert texts("tunelab doctor outputs/sweeps/s/") == ["outputs/sweeps/s/0"]
    assert texts("tunelab ensemble --from outputs/sw") == ["outputs/sweeps/s"]
    assert "resume=outputs/default/a" in texts("tunelab train resume=")
    assert texts("tunelab evaluate else") == ["elsewhere/"]  # no run: a folder to look into
    assert texts("tunelab evaluate outputs/default/a ") == []


def test_tab_loads_neither_torch_nor_hydra_and_takes_less_than_the_help_page() -> None:
    code = (
        "import sys\nfrom tunelab.cli.main import run_command\n"
        "assert run_command(['completion', '--line=' + sys.argv[1], '--last=' + sys.argv[2]]) == 0\n"
        "heavy = {'torch', 'lightning', 'transformers', 'hydra', 'omegaconf', 'optuna', 'numpy', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    for line in ("tunelab ", "tunelab train optimizer=ad", "tunelab train mode=", "tunelab preview data.", "tunelab r"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        last = line.split(" ")[-1].rpartition("=")[2]
        subprocess.run([sys.executable, "-c", code, line, last], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.45, line


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_of_a_shell_is_one(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here to read its script")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])

    subprocess.run([program, "-n", str(script)], check=True)


def test_fish_prints_the_candidates_with_what_they_are() -> None:
    if (fish := shutil.which("fish")) is None:
        pytest.skip("there is no fish here")
    program = f"function tunelab; '{sys.executable}' -c 'from tunelab.cli.main import main; main()' $argv; end\n"
    code = SCRIPTS["fish"].replace("command $words[1]", "tunelab") + program + "complete -C 'tunelab train cv.fol'"

    done = subprocess.run([fish, "-N", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert {line.partition("\t")[0] for line in done.stdout.splitlines()} == {"cv.folds=", "cv.fold="}


def test_a_shell_that_is_not_named_is_a_mistake_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    from tunelab.cli.main import run_command

    with pytest.raises(SystemExit) as left:
        run_command(["completion"])

    assert left.value.code == 2
    assert "tunelab completion bash|zsh|fish" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("begun", ["-", "--", "--d"])
def test_every_command_offers_its_options_to_a_shell_that_asks_after_hyphens(
    command: str, begun: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [COMPLETION, f"--line=tunelab {command} {begun}", f"--last={begun}"]  # as the script for bash asks

    assert load_command(COMPLETION).run(parse_arguments(words)) == 0

    printed = capsys.readouterr().out.split()
    assert "--debug" in printed
    assert printed == [text for text in texts(f"tunelab {command} -") if text.startswith(begun)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_offers_its_choices(command: str) -> None:
    assert texts(f"tunelab {command} --lang ") == ["en", "zh"]
    for action in command_parser(command)._actions if command != "train" else ():
        if action.choices is not None and action.option_strings:
            assert texts(f"tunelab {command} {action.option_strings[-1]} ") == list(action.choices)


def test_every_choice_of_every_group_is_offered_and_nothing_else() -> None:
    conf = conf_directory()
    groups = group_names([conf])
    files = {path.relative_to(conf).with_suffix("").as_posix() for path in conf.rglob("*.yaml")}
    choices = {name for name in files if name.startswith(tuple(f"{group}/" for group in groups))} - {"search/base"}

    offered = [text.replace("=", "/") for group in groups for text in texts(f"tunelab train {group}=")]

    assert set(offered) == choices
    assert len(offered) == len(choices)


def test_a_file_that_others_build_on_is_no_choice(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "_mine.yaml").write_text("# Shared.\n")
    place = f"hydra.searchpath=[file://{tmp_path}]"
    groups = group_options(conf_directory())

    (fault,), _ = separate_faulty([place, "search=nosuch"], conf_directory())

    assert "base" in {option.name for option in groups if option.group == "search"}
    assert "search=base" not in texts("tunelab train search=")
    assert texts(f"tunelab train {place} search=_m") == []
    assert "base" not in fault and "_mine" not in fault and "bayes" in fault
    assert not re.search(r"^\s+base ", groups_table(conf_directory()), flags=re.MULTILINE)
