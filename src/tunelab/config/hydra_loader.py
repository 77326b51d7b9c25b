"""Hydra's config loader, which lets no yaml but our own set what Hydra itself executes, opens or writes to.

Hydra instantiates its callbacks and logging handlers as soon as a config is composed, and its `instantiate` has no
allow-list.  So files are checked as they are read, before Hydra sees what they say: of `hydra`, a study's best.yaml, an
experiment or any other yaml may set what a sweep varies and nothing else.  What is typed on the command line may set
more, but name no class that executes something.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tunelab.config.plugins import is_process_key
from tunelab.config.stored_files import SHAPE_FAULTS, error_on_one_line
from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import translate

OWN_PROVIDERS = ("hydra", "schema")  # files that Hydra's package brings
SWEEP_KEYS = ("hydra.mode", "hydra.sweeper.params", "hydra.sweep.dir", "hydra.sweep.subdir")
STARTING_KEYS = ("search.executor_options", "search.storage")  # what starts processes elsewhere, or opens a database
EXPERIMENT_KEYS = (*SWEEP_KEYS, "hydra.run.dir", "hydra.searchpath")  # what files of conf/ may set besides
EXECUTED_KEYS = ("_target_", "()", "class")  # names of what Hydra and logging.config call
HARMLESS_TARGETS = (
    *("hydra._internal.core_plugins.basic_launcher.BasicLauncher", "hydra_plugins.tunelab_sweeper.TuneLabSweeper"),
    *("hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "colorlog.ColoredFormatter"),
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"),
)
HARMLESS_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
RUN_WORD = "hydra.mode=RUN"  # which Hydra adds to the words of a single run
Words = tuple[str | None, tuple[str, ...], bool]  # the primary config, the overrides, whether a shell gave them
NAMES_OF_FOLDERS = ("name", "hydra.job.name", "hydra.output_subdir", "hydra.sweep.subdir")


class CheckedConfigLoader(ConfigLoaderImpl):
    """Refuses, by name, keys of Hydra's own that a file may not set, and names that lead out of the output folder.

    Raises:
        ConfigError: As soon as a file or the composed config breaks a rule; nothing has been executed by then.
    """

    _for_mode: tuple[Words, DictConfig] | None = None

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        words = (config_name, tuple(overrides), from_shell)
        if (config := self._composed_for_mode(words, run_mode)) is not None:
            return config
        try:
            config = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except (HydraException, OmegaConfBaseException, TuneLabError):
            raise
        except (YAMLError, *SHAPE_FAULTS, OSError) as fault:  # of a yaml whose defaults list is of another shape
            raise ConfigError(
                translate("a yaml of this command cannot be used: {fault}", fault=error_on_one_line(fault))
            ) from fault
        if faults := [*target_faults(config), *folder_name_faults(config)]:
            raise ConfigError.listing(faults)
        if run_mode is RunMode.MULTIRUN and not validate_sweep_overrides:  # Hydra asks for the mode alone
            self._for_mode = words, config
        return config

    def _composed_for_mode(self, words: Words, run_mode: RunMode) -> DictConfig | None:
        """The config of one run as Hydra composed it a moment ago to read `hydra.mode`; None where it may differ.

        Hydra composes everything twice, and throws the first one away: a thirtieth of the time to the first step.
        """
        composed, self._for_mode = self._for_mode, None
        if composed is None or run_mode is not RunMode.RUN:
            return None
        (name, overrides, from_shell), config = composed
        if words != (name, (*overrides, RUN_WORD), from_shell):
            return None
        if "???" in config.hydra.runtime.choices.values():  # an option that a search may leave out, and a run may not
            return None
        parsed = OverridesParser.create().parse_overrides(list(words[1]))
        self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        config.hydra.mode = RunMode.RUN
        config.hydra.overrides.hydra.append(RUN_WORD)
        return config

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachingConfigRepository
    ) -> None:
        primary = repo.load_config(config_name) if config_name is not None else None
        places = OmegaConf.select(primary.config, "hydra.searchpath") if primary is not None else None
        if "pkg://" in str(places):  # looking into a package imports it
            raise ConfigError(
                translate(
                    "{config_name}.yaml sets hydra.searchpath to {places}: of pkg://PACKAGE that would "
                    "be imported, and a yaml may not name what is executed; type hydra.searchpath=[...] "
                    "if you mean it",
                    config_name=config_name,
                    places=places,
                )
            )
        super()._process_config_searchpath(config_name, parsed_overrides, repo)
        repo.cache.clear()  # the primary config was looked for before the search path was known

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        root, place = loaded.path.partition("://")[2], str(default.config_path)
        file = os.path.normpath(os.path.join(root, place))
        inside = loaded.provider == "main" and PurePath(file).is_relative_to(root)
        trusted = default.primary or place == "config" or place.startswith("hydra/")
        if loaded.provider in OWN_PROVIDERS or (inside and trusted):
            return loaded
        named = inside or default.primary  # on the command line, by --config-name
        if faults := file_faults(loaded, f"{file}.yaml".replace(".yaml.yaml", ".yaml"), inside=named):
            raise ConfigError.listing(faults)
        return loaded


def file_faults(loaded: ConfigResult, file: str, *, inside: bool) -> list[str]:
    """Faults of a yaml that sets, or chooses by its defaults list, what belongs to Hydra itself.

    Args:
        loaded: The file, its content at the place where its package puts it.
        file: Its name, for the messages.
        inside: Whether it lies in our conf/, or is the primary config that the command line names.
    """
    allowed = EXPERIMENT_KEYS if inside else SWEEP_KEYS
    reason = translate(
        "which is Hydra's own: of that a yaml may set {names}; type the rest if you mean it", names=", ".join(allowed)
    )
    faults = list[str]()
    for key, value in leaves(OmegaConf.to_container(loaded.config, resolve=False)):
        varied = key.removeprefix("hydra.sweeper.params.")
        if is_below(key, ("hydra",)) and not is_below(key, allowed):
            faults.append(
                translate("{file} sets {names}, {reason}", file=file, names=".".join(key.split(".")[:2]), reason=reason)
            )
        elif is_below(key, ("hydra.sweep",)) and not inside and leads_out(str(value)):
            faults.append(
                translate(
                    "{file} sets {key}={value}, which leads out of the output folder; type it if you mean it",
                    file=file,
                    key=key,
                    value=value,
                )
            )
        elif is_below(key, STARTING_KEYS) and not inside:
            faults.append(
                translate(
                    "{file} sets {key}, which starts or opens things elsewhere; type it if you mean it",
                    file=file,
                    key=key,
                )
            )
        elif varied != key and is_process_key(varied):
            faults.append(translate("{file} varies {varied}, which is no setting of a run", file=file, varied=varied))
    for entry in loaded.defaults_list or []:
        chosen = str(entry.group if isinstance(entry, GroupDefault) else getattr(entry, "path", "")).lstrip("/")
        if chosen.split("/")[0] == "hydra" or "hydra" in str(entry.package or "").split(".")[:2]:
            faults.append(
                translate(
                    "{file} chooses {chosen} in its defaults list, {reason}", file=file, chosen=chosen, reason=reason
                )
            )
    return list(dict.fromkeys(faults))


def leads_out(path: str) -> bool:
    """Whether a path is absolute, climbs up, or is made of something that only resolving it would tell."""
    return path.startswith(("/", "~")) or ".." in PurePath(path).parts or "${oc." in path


def target_faults(config: DictConfig) -> list[str]:
    """Faults of what stands in `hydra` and names a class, a function or an object to import."""
    faults = list[str]()
    for key, value in leaves({"hydra": OmegaConf.to_container(config.hydra, resolve=False)}):
        if is_below(key, ("hydra.sweeper.params", "hydra.overrides", "hydra.help", "hydra.hydra_help")):
            continue
        name = key.rpartition(".")[2]
        text = str(value)
        executed = name in EXECUTED_KEYS and value is not None
        if executed and text not in HARMLESS_TARGETS and not is_allowed(text):
            faults.append(
                translate("{key}={words} is not allowed: Hydra would execute it; leave it out", key=key, words=text)
            )
        elif text.startswith(("ext://", "cfg://")) and text not in HARMLESS_STREAMS:
            faults.append(
                translate(
                    "{key}={words} is not allowed: it would be imported; take {names}",
                    key=key,
                    words=text,
                    names=" or ".join(HARMLESS_STREAMS),
                )
            )
    return faults


def is_allowed(target: str) -> bool:
    """Whether a class or function is one that the settings of a run may name too."""
    from tunelab.config.instantiate import is_allowed_target  # it takes the schema, which --help does without

    return is_allowed_target(target)


def folder_name_faults(config: DictConfig) -> list[str]:
    """Faults of settings that become the name of one folder below the outputs, such as `name=../../x`."""
    faults = list[str]()
    for key in NAMES_OF_FOLDERS:
        value = OmegaConf.select(config, key, throw_on_missing=False, throw_on_resolution_failure=False)
        if isinstance(value, str) and (reason := unsafe_name_reason(value)):
            faults.append(
                translate(
                    "{key}={value!r} {reason}, so files would be written elsewhere than you see; give "
                    "one plain name, and another place by hydra.run.dir=DIR",
                    key=key,
                    value=value,
                    reason=reason,
                )
            )
    return faults


def unsafe_name_reason(name: str) -> str | None:
    """Why a text is no name of one folder; None where it is one."""
    if name in ("", ".", "..") or name != name.strip():
        return translate("is no name")
    if "/" in name or "\\" in name:
        return translate("holds a slash")
    if any(not letter.isprintable() for letter in name):
        return translate("holds characters that are not printable")
    if name.startswith(("~", "-")):
        return translate("begins with {name}", name=name[0])
    return (
        translate("is longer than a file name may be") if len(name.encode("utf-8", "surrogateescape")) > 200 else None
    )


def is_below(key: str, places: Sequence[str]) -> bool:
    """Whether a dotted key is one of some places, or lies below one."""
    return any(key == place or key.startswith(f"{place}.") for place in places)


def leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """The dotted name of every value that is no block, with the value; an empty block counts as one."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{key}.{place}")
    else:
        yield key, value


def check_configs() -> None:
    """Make Hydra load every config of this process through the checks above."""
    setattr(hydra._internal.hydra, "ConfigLoaderImpl", CheckedConfigLoader)  # noqa: B010  # a name that mypy reads as final
