"""Overrides of a command line: what they imply, and what is wrong with them."""

import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tunelab.config.hydra_loader import check_configs
from tunelab.config.other_frameworks import answer_other_name
from tunelab.config.override_text import (
    NAME_FLAG,
    PRIMARY_CONFIG,
    config_folders,
    gather_flags,
    plain_text,
    primary_config,
    quote_typed,
    readable,
    search_path_word,
    unreadable_reason,
)
from tunelab.config.plugins import allow_plugins
from tunelab.config.quoting import path_word, quote_hydra
from tunelab.config.renames import rename_overrides
from tunelab.config.resource_paths import cache_directory, conf_directory, is_choice
from tunelab.config.resume import CHANGEABLE_KEYS, find_config_file, read_settings
from tunelab.config.stored_files import error_on_one_line, read_stored_yaml
from tunelab.errors import ConfigError
from tunelab.language.translation import translate

check_configs()

MISSING_KEY = object()
OWN_LOGGER_WORD = "logger._target_="
HYDRA_FLAGS = frozenset(  # flags of Hydra that take no value with an equals sign, and those that do
    (
        "--help --hydra-help --version --cfg --resolve --package --run --multirun --shell-completion --config-path "
        "--config-name --config-dir --experimental-rerun --info"
    ).split()
)
SPACE_PREFIX = "search.space.params."  # a key of the space may be written out
GROUPS_OF_SEVERAL = (
    "regularization",
    "metrics",
    "callbacks",
    "logger",
)  # a training may have several
MULTIRUN_FLAGS = frozenset({"-m", "--multirun"})
HYDRA_ADVICE = re.compile(r"(To append to your config|Set the environment|object_type=|full_key:|Could not override)")


def complete_overrides(arguments: Sequence[str]) -> list[str]:
    """The command line with what it implies.

    `model.path=X` alone means `model=pretrained model.path=X`: the settings of the built-in model (its size class)
    do not fit another one.  `experiment=STUDY/best` is a file that a search left.  `cv.folds=5` has a folder named
    after the words themselves, so that the same command goes on there.  `resume=DIR` goes on in that very folder, with
    its own settings.  `plugins=[PACKAGE]` is taken out: it holds for this process.  `--config-dir DIR` becomes a search
    path, which processes of a search need too.  Flags come first: argparse does not take words on both sides of one.

    Raises:
        ConfigError: If there is no run to go on with, or a flag would read settings past every check.
    """
    refuse_flags(arguments)
    refuse_hyphens(arguments)
    arguments = [quote_typed(word) for word in rename_overrides(allow_plugins(gather_flags(arguments)))]
    # a block that names no class may be given one
    arguments = [f"++{word}" if word.startswith(OWN_LOGGER_WORD) else word for word in arguments]
    many = [argument for argument in arguments if argument in MULTIRUN_FLAGS]
    name = [argument for argument in arguments if argument.startswith(f"{NAME_FLAG}=")]
    completed = [argument for argument in arguments if argument not in (*many, *name)]
    keys = {override_key(argument) for argument in completed if "=" in argument}
    if "model.path" in keys and "model" not in keys:
        completed.insert(0, "model=pretrained")
    for index, argument in enumerate(list(completed)):
        file = plain_text(argument) if override_key(argument) == "experiment" else None
        if file is not None and (elsewhere := locate_experiment(file)) is not None:
            completed[index] = path_word("experiment", elsewhere[0])
            beside = [word for word in completed if word.startswith("hydra.searchpath=")]
            completed = [word for word in completed if word not in beside]
            completed.insert(0, search_path_word(beside, [elsewhere[1]]))
            break
    folds = [argument.partition("=")[2] for argument in arguments if override_key(argument) == "cv.folds"]
    if folds and folds[-1] not in ("", "null") and not keys & {"cv.fold", "hydra.run.dir"} and not many:
        words = [word for word in arguments if override_key(word) != "lang"]
        digest = blake2b("\0".join(words).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
        completed.insert(0, f"hydra.run.dir=outputs/${{name}}/cv_{digest}")
    for argument in arguments:
        folder = plain_text(argument) if override_key(argument) == "resume" else None
        if folder:
            stored = find_config_file(Path(folder))  # before Hydra makes the folder
            own = own_settings(completed, stored)
            completed = [f"++{word}" if word in own else word for word in completed]
            if "hydra.run.dir" not in keys:
                completed.insert(0, path_word("hydra.run.dir", folder))
    return [*many[:1], *name, *completed]


def own_settings(words: Sequence[str], stored: Path) -> set[str]:
    """The words that set what a run that goes on has and may change, such as `trainer.fsdp.load` of a sharded one.

    The defaults, which Hydra composes for it, may lack that.

    Args:
        words: Of the command line.
        stored: The config.yaml of the run.
    """
    keys = {word: word.partition("=")[0] for word in words if "=" in word}
    keys = {word: key for word, key in keys.items() if "." in key and key.partition(".")[0] in CHANGEABLE_KEYS}
    if not keys:
        return set()
    settings = read_settings(stored)
    return {word for word, key in keys.items() if OmegaConf.select(settings, key) is not None}


def refuse_hyphens(arguments: Sequence[str]) -> None:
    """Refuse settings that are written as flags, such as --lr=3e-5.

    Raises:
        ConfigError: Naming what to type, and how `wandb agent` is brought to type it.
    """
    flags = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in HYDRA_FLAGS]
    if flags:
        faults = []
        for word in flags:
            name, equals, value = word.lstrip("-").partition("=")
            key, value = name.replace("-", "_"), value if equals else "VALUE"
            answer = answer_other_name(key, value) or translate("type {key}={value}", key=key, value=value)
            faults.append(translate("{word}: settings have no hyphens; {answer}", word=word, answer=answer))
        hint = translate("In a sweep of W&B, put ${args_no_hyphens} in place of ${args} in the command of sweep.yaml")
        raise ConfigError(f"{ConfigError.listing(faults)}\n{hint}")


def refuse_flags(arguments: Sequence[str]) -> None:
    """Refuse flags of Hydra that execute a file, or put other files in the place of ours.

    Raises:
        ConfigError: Naming them.  Hydra takes a flag cut short for the whole one.
    """
    faults = list[str]()
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        flag, _, value = word.partition("=")
        if len(flag) > 2 and "--experimental-rerun".startswith(flag):
            faults.append(
                translate(
                    "{word}: a pickle executes what it holds; resume=RUN goes on with a run, from plain values",
                    word=word,
                )
            )
        if (len(flag) > 2 and "--config-path".startswith(flag)) or flag == "-cp":
            faults.append(
                translate(
                    "{word}: it would replace all of conf/; experiment=FILE.yaml or --config-dir DIR adds to it",
                    word=word,
                )
            )
        if ((len(flag) > 10 and "--config-name".startswith(flag)) or flag == "-cn") and "/" in (value or following):
            faults.append(
                translate("{word}: it names a file of conf/; experiment=FILE.yaml adds one from elsewhere", word=word)
            )
    if faults:
        raise ConfigError.listing(faults)


def locate_experiment(value: str) -> tuple[str, Path] | None:
    """An experiment file that lies outside conf/, or a study with one: its name, and where Hydra must look.

    Hydra finds it in a folder named experiment; a link to the file is made there.  A plain file of settings, which has
    no line `# @package _global_`, is written with that line into the user's cache.
    """
    named = (Path(f"{value}.yaml"), Path(value), Path(value) / "best.yaml")  # the last: a study by itself
    file = next((path for path in named if path.suffix == ".yaml" and path.is_file()), None)
    if file is None or ("/" not in value and (conf_directory() / "experiment" / f"{value}.yaml").is_file()):
        return None
    check_yaml(file)
    linked = file.parent / "experiment" / file.name
    if not is_hydra_file(file) or not (linked.exists() or os.access(file.parent, os.W_OK)):
        return file.stem, write_experiment(file)
    if not linked.exists():
        linked.parent.mkdir(exist_ok=True)
        linked.symlink_to(Path("..") / file.name)
    return file.stem, file.parent.absolute()


def check_yaml(file: Path) -> None:
    """Check that a yaml from elsewhere can be read, before Hydra does.

    Raises:
        ConfigError: If it is damaged, holds no settings, or would fill the memory.
    """
    advice = translate("give the yaml that a search wrote, or one with the keys of docs/reference.md")
    try:
        values = yaml.safe_load(read_stored_yaml(file, advice))
    except (yaml.YAMLError, RecursionError) as fault:
        raise ConfigError(
            translate("{file} is no yaml: {fault}; {advice}", file=file, fault=error_on_one_line(fault), advice=advice)
        ) from fault
    if not isinstance(values, dict):
        raise ConfigError(translate("{file} holds no settings by name; {advice}", file=file, advice=advice))


def is_hydra_file(file: Path) -> bool:
    """Whether a yaml says by a line `# @package` where its settings belong."""
    return re.search(r"^\s*#\s*@package", file.read_text(encoding="utf-8"), flags=re.MULTILINE) is not None


def write_experiment(file: Path) -> Path:
    """Write a plain yaml of settings as an experiment into the user's cache; returns the folder for the search path.

    Its keys are those of the command line: a text beside the name of a group (`model: minilm`) chooses an option, and
    `data.train: my.jsonl` stands for a block.

    Raises:
        ConfigError: If the file holds no settings.
    """
    text = file.read_text(encoding="utf-8")
    if not is_hydra_file(file):
        try:
            loaded = OmegaConf.create(text)  # it reads 3e-5 as a number, which YAML by itself takes for a text
            settings = OmegaConf.to_container(loaded, resolve=False)
        except (YAMLError, OmegaConfBaseException) as fault:
            raise ConfigError(
                translate("{file} cannot be read: {names}", file=file, names=" ".join(str(fault).split()))
            ) from fault
        if not isinstance(settings, dict):
            raise ConfigError(translate("{file} holds no settings: it must be lines of key: value", file=file))
        groups = {path.name for path in conf_directory().iterdir() if path.is_dir()}
        chosen = {key: settings.pop(key) for key in list(settings) if key in groups and names_options(settings[key])}
        if "model.path" in settings and "model" not in (*chosen, *settings):
            chosen["model"] = "pretrained"  # as on the command line
        defaults = [*settings.pop("defaults", []), *({f"override /{key}": value} for key, value in chosen.items())]
        nested = OmegaConf.create({"defaults": [*defaults, "_self_"]})
        for key, value in settings.items():
            OmegaConf.update(nested, str(key), value, force_add=True)
        plain = OmegaConf.to_yaml(nested)
        text = f"# @package _global_\n# {file.absolute()}\n{plain}"
    digest = blake2b(f"{file.absolute()}\0{text}".encode(), digest_size=8).hexdigest()
    place = cache_directory() / "experiments" / digest
    target = place / "experiment" / file.name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{file.stem}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    return place


def names_options(value: object) -> bool:
    """Whether a value beside the name of a group chooses an option, or several."""
    texts = value if isinstance(value, list) else [value]
    return bool(texts) and all(isinstance(text, str) for text in texts)


def strip_flags(arguments: Sequence[str]) -> list[str]:
    """The overrides of a command line, without flags."""
    return [argument for argument in arguments if not argument.startswith("-")]


def override_key(override: str) -> str:
    """The key that an override sets."""
    return override.lstrip("+~").partition("=")[0]


def override_faults(arguments: Sequence[str], conf: Path) -> list[str]:
    """Faults of each override, and of the values of those that compose, so that all are reported at once.

    Args:
        arguments: The command line; flags are passed over.
        conf: The folder of config.yaml and the groups.
    """
    overrides = [override for override in strip_flags(arguments) if not sets_hydra_key(override)]
    unread = [word for word in strip_flags(arguments) if unreadable_reason(word)]
    primary = primary_config(arguments)
    swept = {word: one_valued_words(word) for word in overrides}
    several = [] if MULTIRUN_FLAGS.intersection(arguments) else [word for word in overrides if swept[word] != [word]]
    firsts = [swept[word][0] for word in overrides]
    faults, good = separate_faulty(firsts, conf, primary)
    for word in overrides if not several else ():
        faults += [fault for other in swept[word][1:] for fault in further_value_faults(other, firsts, conf, primary)]
    faults = [*dict.fromkeys(faults), *(several_values_fault(word) for word in several)]
    faults += [f"{word}: {unreadable_reason(word)}" for word in unread if word not in overrides]
    if not faults:
        return []
    from tunelab.config.validate import validate_config  # it looks at the targets, which takes torch

    with initialize_config_dir(str(conf), version_base="1.3"):
        try:
            validate_config(compose(primary, overrides=good))
        except ConfigError as fault:
            others = [line.removeprefix("  - ") for line in str(fault).splitlines()[1:]]
            lost = {override_key(word) for word in overrides} - {override_key(word) for word in good}
            lost |= {override_key(word) for word in several}
            faults += [line for line in others if re.split(r"[ =:]", line, maxsplit=1)[0] not in lost]
    return list(dict.fromkeys(faults))


def one_valued_words(word: str) -> list[str]:
    """A word for each value that a search would try, of a range for both its ends; of any other word itself alone.

    Example:
        >>> one_valued_words("lr=1e-4,1e-3"), one_valued_words("lr=interval(1e-5,1e-3)"), one_valued_words("lr=1e-4")
        (['lr=0.0001', 'lr=0.001'], ['lr=1e-05', 'lr=0.001'], ['lr=1e-4'])
    """
    override = OverridesParser.create().parse_override(word) if not unreadable_reason(word) else None
    if override is None or not override.is_sweep_override():
        return [word]
    values, name = override.value(), word.partition("=")[0].removeprefix(SPACE_PREFIX)
    if isinstance(values, IntervalSweep):
        texts = [str(values.start), str(values.end)]
    elif override.is_discrete_sweep() and not isinstance(values, Glob):
        texts = list(dict.fromkeys(override.sweep_string_iterator()))
    else:
        return [word]
    return [f"{name}={text}" for text in texts]


def further_value_faults(word: str, others: Sequence[str], conf: Path, primary: str) -> list[str]:
    """What is wrong with a further value that a search would try: no option of its group, or not of its type.

    Args:
        word: `key=value`.
        others: The whole command line with one value for each key, which names the folders of options.
        conf: The folder of config.yaml and the groups.
        primary: Name of the config that all others join.
    """
    key = override_key(word)
    if any((folder / key).is_dir() for folder in config_folders(others, conf)):
        places = [other for other in others if override_key(other) == "hydra.searchpath"]
        return separate_faulty([*places, word], conf, primary)[0]
    from tunelab.config.schema import value_fault

    fault = value_fault(key, cast(Any, OverridesParser.create().parse_override(word).value()))
    return [fault] if fault else []


def several_values_fault(word: str) -> str:
    """What to type where one training was to have several values of a setting."""
    from tunelab.config.schema import key_types, value_fault

    key, value = override_key(word), word.partition("=")[2]
    ways = [translate("to search over them, add -m")]
    listed, text = f"{key}=[{value}]", f"{key}={quote_hydra(value)}"
    if readable(listed) and (key in GROUPS_OF_SEVERAL or takes_list(key)):
        ways.append(translate("to have them all, type {words}", words=shlex.quote(listed)))
    elif key in key_types() and value_fault(key, value) is None:
        ways.append(translate("to have them all, type {words}", words=shlex.quote(text)))
    return translate("{word}: several values for one training; {ways}", word=word, ways=translate("; ").join(ways))


def takes_list(key: str) -> bool:
    """Whether a setting may be a list of texts."""
    from tunelab.config.schema import key_types, value_fault

    return key in key_types() and value_fault(key, ["a"]) is None


def sets_hydra_key(override: str) -> bool:
    """Whether an override sets something of Hydra's own that composing by ourselves does without."""
    return override_key(override).startswith("hydra") and override_key(override) != "hydra.searchpath"


def separate_faulty(overrides: Sequence[str], conf: Path, primary: str = PRIMARY_CONFIG) -> tuple[list[str], list[str]]:
    """Faults of the overrides that do not compose, and the overrides that do.

    Args:
        overrides: Of the task, none of Hydra's own but its search path.
        conf: The folder of config.yaml and the groups.
        primary: Name of the config that all others join.
    """
    folders = config_folders(overrides, conf)
    groups = [override for override in overrides if any((one / override_key(override)).is_dir() for one in folders)]
    GlobalHydra.instance().clear()
    good = [override for override in overrides if override_key(override) == "hydra.searchpath"]
    unread = {override: reason for override in overrides if (reason := unreadable_reason(override))}
    faults = [f"{override}: {reason}" for override, reason in unread.items()]
    groups, overrides = ([word for word in words if word not in unread] for words in (groups, overrides))
    with initialize_config_dir(str(conf), version_base="1.3"):
        with suppress(HydraException, OmegaConfBaseException):
            compose(primary, overrides=list(overrides))
            return faults, list(overrides)  # all is well: no need to look at each by itself, which takes seconds
        # blocks first: whether a key exists depends on the block that was chosen
        for override in [*groups, *(other for other in overrides if other not in groups and other not in good)]:
            try:
                compose(primary, overrides=[*good, override])
                good.append(override)
            except (HydraException, OmegaConfBaseException) as fault:
                elsewhere = override in groups and not isinstance(fault, MissingConfigException)
                hint = None if elsewhere else suggest_override(override, folders, compose(primary, good))
                faults.append(f"{override}: {hint or error_reason(fault)}")
    return faults, good


def suggest_override(override: str, folders: Sequence[Path], config: DictConfig) -> str | None:
    """The key or option that a misspelt override may mean; None where it is well spelt.

    Args:
        override: As it was typed.
        folders: Those that options are looked for in.
        config: What the rest of the command line composes to.
    """
    key, _, value = override.lstrip("+~").partition("=")
    is_known = OmegaConf.select(config, key, default=MISSING_KEY, throw_on_missing=False) is not MISSING_KEY
    if not is_known and (answer := answer_other_name(key, value)) is not None:
        return translate("'{key}' is no setting; {advice}", key=key, advice=answer)
    if any((folder / key).is_dir() for folder in folders):
        options = sorted(
            {path.stem for folder in folders for path in (folder / key).glob("*.yaml") if is_choice(path.stem)}
        )
        wrong = next((name for name in re.findall(r"[\w.-]+", value) if name not in options), value)  # of a list: one
        near = get_close_matches(wrong, options, 1)
        known = translate("there are {names}", names=", ".join(options))
        facts = {"key": key, "option": wrong, "known": known}
        if near:
            return translate("{key} has no option '{option}'; did you mean '{name}'? ({known})", name=near[0], **facts)
        return translate("{key} has no option '{option}'; {known}", **facts)
    parent, _, name = key.rpartition(".")
    block = OmegaConf.select(config, parent) if parent else config
    if parent and not isinstance(block, DictConfig):
        whole = f"{parent}={{{name}: {value}}}"
        whole_block = translate(
            "'{parent}' holds no settings of its own here; give it whole, in quotes: '{whole}'",
            parent=parent,
            whole=whole,
        )
        return suggest_override(whole, folders, config) or whole_block
    groups = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()} if not parent else set()
    names = sorted({str(other) for other in block} | groups)
    if name in names:
        return None
    if parent == "callbacks" and "_target_" in value:
        return translate(
            "'{key}' is a callback that nothing else names yet; add it by +{key}={value}", key=key, value=value
        )
    near = get_close_matches(name, names, 1)
    there = f"{parent}." if parent else ""
    guess = translate("did you mean '{name}'?", name=f"{there}{near[0]}") if near else ""
    advice = guess or translate("there are {names}", names=", ".join(names))
    return translate("'{key}' is no setting; {advice}", key=key, advice=advice)


def error_reason(fault: BaseException) -> str:
    """The text of an error and of its cause on one line, without Hydra's advice to add unknown keys."""
    texts = [str(fault), str(fault.__cause__ or "")]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not HYDRA_ADVICE.match(line)]
    return "; ".join(dict.fromkeys(kept or lines))
