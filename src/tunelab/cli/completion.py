"""What may stand at the end of a command line: commands, options, groups, settings, values, runs.  Loads no Hydra.

Settings are read from the comments in conf/ instead of composed, which would take three times as long at every TAB.
"""

import argparse
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tunelab.cli.config_comments import ConfigKey, choices_in, config_keys, headline, included_in
from tunelab.config.quoting import names_path
from tunelab.config.resource_paths import conf_directory, expand_home, is_choice

OPEN_ENDS = ("=", ".", "/")  # of a candidate that something has to follow
FOLDERS, FILES, RUNS = "DIR OUTPUTS".split(), "FILE".split(), "RUN STUDY PATH RUN_OR_DIR".split()  # and other places
MAX_RUN_FOLDERS = 2000  # folders that are looked into for runs
SKIPPED_FOLDERS = frozenset({"checkpoints", "export", "report", "wandb", "engines", "node_modules", "__pycache__"})
RUN_FILES = {"run.json": "run", "metrics.csv": "run", "trials.jsonl": "search", "study.json": "search"}
TRAIN_FLAGS = {  # of `tunelab train` and train.py
    "--multirun": "search over every value that is listed",
    "-m": "the same as --multirun",
    "--help": "the options and settings, with the values they would have",
    "--verbose": "print every setting and every count before training",
    "-v": "the same as --verbose",
    "--config-dir": "a folder with more options, such as experiments of your own",
    "--config-name": "another primary config than config.yaml",
    "--cfg": "print the settings instead of training: job, hydra or all",
    "--resolve": "with --cfg: interpolations filled in",
    "--package": "with --cfg: a part of the settings, such as optimizer",
    "--info": "how Hydra composed the settings",
    "--lang": "language of messages and pages",
    "--debug": "print a traceback with every error message",
}
FLAG_VALUES = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all"), "--lang": ("en", "zh")}
FOLDER_FLAGS = ("--config-dir", "-cd")
MORE_KEYS = {  # settings of the process, which no file in conf/ has
    "plugins=": "packages of your own whose classes may be named: [mylab]",
    "hydra.searchpath=": "folders with more options: [file://DIR]",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to end the last word of a command line.

    Attributes:
        text: The whole word.
        note: What it is.
        elsewhere: Whether it is a key of that name in another block, for words that no key begins with.
    """

    text: str
    note: str = ""
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command line as the cursor stands in it.

    Attributes:
        before: The words before the cursor, without the program's name.
        current: The word up to the cursor; empty behind a blank.
        typed: The same as it was typed, with backslashes.
    """

    before: Sequence[str]
    current: str
    typed: str

    @classmethod
    def parse(cls, line: str) -> "CommandLine | None":
        """The words of a line up to the cursor; None within quotes, where shells differ."""
        words, current, typed, quote, begun = list[str](), "", "", "", False
        signs = iter(line)
        for sign in signs:
            if sign.isspace() and not quote:
                if begun:
                    words.append(current)
                current, typed, begun = "", "", False
                continue
            begun, typed = True, typed + sign
            if sign == "\\" and quote != "'":
                escaped = next(signs, "")
                current, typed = current + escaped, typed + escaped
            elif sign in "'\"" and quote in ("", sign):
                quote = "" if quote else sign
            else:
                current += sign
        return None if quote else cls(words[1:], current, typed)


def complete_line(line: str, last: str) -> list[str]:
    """What may replace the last part of a line in a shell that breaks words at `=` and `:`, as bash does.

    Args:
        line: Up to the cursor, the program's name first.
        last: The part that will be replaced, as it was typed.
    """
    parsed = CommandLine.parse(line)
    if parsed is None:
        return []
    last = "" if last in ("=", ":") else last
    kept = len(parsed.typed) - len(last) if parsed.typed.endswith(last) else 0
    texts = [shell_text(one.text) for one in candidates(parsed.before, parsed.current)]
    return [text[kept:] for text in texts if text.startswith(parsed.typed[:kept])]


def describe_line(line: str) -> list[str]:
    """The candidates for the last word of a line, each with what it is behind a tab."""
    parsed = CommandLine.parse(line)
    listed = candidates(parsed.before, parsed.current) if parsed is not None else []
    return [f"{one.text}\t{one.note}" if one.note else one.text for one in listed]


def shell_text(text: str) -> str:
    """A word with a backslash before each sign that a shell would act on; brackets stay as they are typed."""
    return re.sub(r"([\s\\'\"`$&;|<>()*?!#])", r"\\\1", text)


def candidates(before: Sequence[str], current: str) -> list[Candidate]:
    """The ways to end the last word of a command line of `tunelab`.

    Args:
        before: The words before it, without the program's name.
        current: The word so far.
    """
    from tunelab.cli.main import COMMANDS, TRAIN, command_parser
    from tunelab.language.translation import translate

    words = [*before]
    while words and words[0].startswith("-"):  # options before the command
        words = words[1 if words[0] != "--lang" or len(words) == 1 else 2 :]
    if before and before[-1] == "--lang" and not words[1:]:
        listed = [Candidate(value) for value in FLAG_VALUES["--lang"]]
    elif not words:
        options = (option for option in ("--debug", "--help", "--lang", "--version") if current.startswith("-"))
        listed = [*(Candidate(name, translate(note)) for name, note in COMMANDS.items()), *map(Candidate, options)]
    elif words[0] == TRAIN:
        listed = list(train_candidates(words[1:], current))
    elif words[0] in COMMANDS:
        listed = list(command_candidates(command_parser(words[0]), words[1:], current))
    else:
        listed = []
    matching = [one for one in listed if one.text.startswith(current)] or [one for one in listed if one.elsewhere]
    return list({one.text: one for one in reversed(matching)}.values())[::-1]  # of a key the comment in config.yaml


def command_candidates(parser: argparse.ArgumentParser, before: Sequence[str], current: str) -> Iterator[Candidate]:
    """Options, values of options and positional words of a command with options."""
    actions = parser._actions
    by_option = {option: action for action in actions for option in action.option_strings}
    previous = by_option.get(before[-1]) if before else None
    option, equals, value = current.partition("=")
    if previous is not None and previous.nargs != 0:
        yield from argument_candidates(previous, before, current)
    elif equals and option in by_option:
        for one in argument_candidates(by_option[option], before, value):
            yield Candidate(f"{option}={one.text}", one.note)
    elif current.startswith("-"):
        for option, action in by_option.items():
            yield Candidate(option, action.help % vars(action) if action.help else "")
    else:
        taking = {option for option, action in by_option.items() if action.nargs != 0}
        pairs = zip(["", *before], before, strict=False)
        position = sum(not word.startswith("-") and earlier not in taking for earlier, word in pairs)
        positional = [action for action in actions if not action.option_strings]
        if position < len(positional) or (positional and positional[-1].nargs in ("*", "+")):
            yield from argument_candidates(positional[min(position, len(positional) - 1)], before, current)


def argument_candidates(action: argparse.Action, before: Sequence[str], current: str) -> Iterator[Candidate]:
    """The values of an option or a positional word, told by its choices or by what stands for it in the help."""
    from tunelab.cli.main import SETTINGS

    if action.choices is not None:
        yield from map(Candidate, map(str, action.choices))
    elif action.metavar == SETTINGS:
        yield from setting_candidates(before, current)
    elif action.metavar in RUNS:
        yield from run_candidates(current)
    elif action.metavar in FOLDERS:
        yield from path_candidates(current, folders_only=True)
    elif action.metavar in FILES or action.type is Path:
        yield from path_candidates(current)


def train_candidates(before: Sequence[str], current: str) -> Iterator[Candidate]:
    """Flags of a training and its settings."""
    previous = before[-1] if before else ""
    flag, equals, value = current.partition("=")
    if previous in FOLDER_FLAGS:
        yield from path_candidates(current, folders_only=True)
    elif equals and flag in FOLDER_FLAGS:
        for one in path_candidates(value, folders_only=True):
            yield Candidate(f"{flag}={one.text}")
    elif previous in FLAG_VALUES:
        yield from map(Candidate, FLAG_VALUES[previous])
    elif previous in ("--config-name", "-cn"):
        for folder in config_places(before):
            yield from (Candidate(path.stem) for path in sorted(folder.glob("*.yaml")))
    elif current.startswith("-"):
        yield from (Candidate(name, note) for name, note in TRAIN_FLAGS.items())
    else:
        yield from setting_candidates(before, current)


def setting_candidates(before: Sequence[str], current: str) -> Iterator[Candidate]:
    """Groups and keys one level at a time; behind `=` the options of a group, or the values of a key."""
    signs = current[: len(current) - len(current.lstrip("+~"))]
    key, equals, value = current[len(signs) :].partition("=")
    folders = config_places(before)
    if not equals:
        for one in (*group_candidates(folders), *key_candidates(folders, before, key)):
            yield replace(one, text=signs + one.text.rstrip("=" if signs == "~" else ""))
        return
    if key in group_names(folders):
        begun = re.match(r".*[\[,]|", value)[0]  # type: ignore[index]  # an empty match at least
        taken = set(re.findall(r"[\w./-]+", begun))
        options = [one for one in option_candidates(folders, key) if one.text not in taken]
        listed = [Candidate(begun + one.text, one.note) for one in options]
        listed += path_candidates(value) if key == "experiment" and value else []
    else:
        listed = list(value_candidates(key, value))
    yield from (Candidate(f"{signs}{key}={one.text}", one.note) for one in listed)


def config_places(words: Sequence[str]) -> list[Path]:
    """The folders of options: conf/, and those that the words name by `--config-dir` or `hydra.searchpath`."""
    places = [following for word, following in pairwise(words) if word in FOLDER_FLAGS]
    places += [word.partition("=")[2] for word in words if word.startswith(tuple(f"{flag}=" for flag in FOLDER_FLAGS))]
    for word in words:
        if word.startswith("hydra.searchpath="):
            places += re.findall(r"file://([^,'\"\]]+)", word)
    folders = [conf_directory(), *map(expand_home, places)]
    return [folder for folder in folders if folder.is_dir()]


def group_names(folders: Sequence[Path]) -> list[str]:
    """The groups that a word may choose an option of, those of Hydra itself left out."""
    named = choices_in((folders[0] / "config.yaml").read_text(encoding="utf-8"))
    added = [inner.name for folder in folders[1:] for inner in folder.iterdir() if any(inner.glob("*.yaml"))]
    return [name for name in dict.fromkeys([*named, *sorted(added)]) if name.partition("/")[0] != "hydra"]


def group_candidates(folders: Sequence[Path]) -> Iterator[Candidate]:
    """Each group, ready for its option."""
    for name in group_names(folders):
        yield Candidate(f"{name}=", "one of its options")


def option_candidates(folders: Sequence[Path], group: str) -> Iterator[Candidate]:
    """The options of a group, those in folders below it by their path; `search/space` is a group of its own."""
    others = {name for name in group_names(folders) if name.startswith(f"{group}/")}
    for folder in folders:
        for path in sorted((folder / group).rglob("*.yaml")):
            if is_choice(path.stem) and path.parent.relative_to(folder).as_posix() not in others:
                name = path.relative_to(folder / group).with_suffix("").as_posix()
                yield Candidate(name, headline(path.read_text(encoding="utf-8")))


def key_candidates(folders: Sequence[Path], words: Sequence[str], begun: str) -> Iterator[Candidate]:
    """The settings below the last dot that was typed: `eval.` for a block, `lr=` for a key.

    Args:
        folders: Of the options.
        words: Those before, which choose options.
        begun: The dotted name so far.
    """
    above = begun.rpartition(".")[0]
    start = f"{above}." if above else ""
    for key in setting_keys(folders, words):
        if key.name.startswith(start):
            name, dot, _ = key.name.removeprefix(start).partition(".")
            if not name.startswith("_") or begun.removeprefix(start).startswith("_"):
                yield Candidate(f"{start}{name}{dot or '='}", "" if dot else key.note)
        if above and key.name.rpartition(".")[2].startswith(begun.rpartition(".")[2] or "."):
            yield Candidate(f"{key.name}=", key.note, elsewhere=True)
    yield from (Candidate(name, note) for name, note in MORE_KEYS.items() if name.startswith(begun))


def setting_keys(folders: Sequence[Path], words: Sequence[str]) -> Iterator[ConfigKey]:
    """The settings of config.yaml and of every option that the words choose, or else the defaults."""
    text = (folders[0] / "config.yaml").read_text(encoding="utf-8")
    yield from config_keys(text)
    pairs = [word.lstrip("+").partition("=") for word in words]
    typed = {key: re.findall(r"[\w./-]+", value) for key, _, value in pairs}
    chosen = {**choices_in(text), **{key: names for key, names in typed.items() if "." not in key}}
    for path in included_in(text):
        group, _, name = path.rpartition("/")
        chosen[group] = [name, *chosen.get(group, ())]
    for group in [*chosen]:  # an option may choose others; what is typed wins
        for name in chosen[group]:
            others = choices_in(option_text(folders, group, name))
            chosen.update({other: names for other, names in others.items() if other not in typed})
    for group, names in chosen.items():
        for name in names:
            yield from option_keys(folders, group, name)


def option_text(folders: Iterable[Path], group: str, name: str) -> str:
    """The yaml of an option; empty where there is none of that name."""
    paths = (folder / group / f"{name}.yaml" for folder in folders)
    return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), "")


def option_keys(folders: Sequence[Path], group: str, name: str) -> Iterator[ConfigKey]:
    """The settings of an option and of those that it builds on, by the names that a command line gives them."""
    if group.partition("/")[0] == "hydra":
        return
    text = option_text(folders, group, name)
    prefix = "" if text.startswith("# @package _global_") else f"{group.replace('/', '.')}."
    for other in included_in(text):
        yield from option_keys(folders, group, other)
    for key in config_keys(text):
        yield ConfigKey(prefix + key.name, key.value, key.note)


def value_candidates(key: str, begun: str) -> Iterator[Candidate]:
    """The legal values of a key where they are few, files where it names one, runs where it goes on with one."""
    from tunelab.config.schema import legal_values

    if values := legal_values(key):
        yield from map(Candidate, values)
    elif key in ("resume", "search.warm_start"):
        yield from [Candidate("auto", "the newest run of these very settings")] if key == "resume" else []
        yield from run_candidates(begun)
    elif names_path(key):
        yield from path_candidates(begun)


def path_candidates(begun: str, *, folders_only: bool = False) -> Iterator[Candidate]:
    """Files and folders whose path begins so; hidden ones where a dot was typed."""
    parent, slash, name = begun.rpartition("/")
    try:
        entries = sorted(os.scandir(expand_home(parent + slash) if parent + slash else "."), key=lambda one: one.name)
    except OSError:
        return
    for entry in entries:
        is_folder = entry.is_dir()
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")) and (is_folder or not folders_only):
            yield Candidate(f"{parent}{slash}{entry.name}{'/' if is_folder else ''}")


def run_candidates(begun: str) -> Iterator[Candidate]:
    """Runs and searches below the folder that was typed, at first those below outputs/; else folders."""
    place = begun.rpartition("/")[0]
    start = place or ("/" if begun.startswith("/") else "outputs")
    runs = [Candidate(path, kind) for path, kind in walk_runs(start) if path.startswith(begun)]
    yield from runs or path_candidates(begun, folders_only=True)


def walk_runs(start: str) -> Iterator[tuple[str, str]]:
    """Path and kind of each run and search below a folder, those inside a search left out unless it is the start."""
    waiting, left = [start], MAX_RUN_FOLDERS
    while waiting and left > 0:
        folder, left = waiting.pop(0), left - 1
        try:
            entries = list(os.scandir(expand_home(folder)))
        except OSError:
            continue
        names = {entry.name for entry in entries}
        kind = next((kind for file, kind in RUN_FILES.items() if file in names), "")
        if kind and folder != start:
            yield folder, kind
        else:
            inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            waiting += [f"{folder}/{name}" for name in sorted(inner) if usable_folder(name)]


def usable_folder(name: str) -> bool:
    """Whether a run may lie in a folder of that name."""
    return not name.startswith(".") and name not in SKIPPED_FOLDERS
