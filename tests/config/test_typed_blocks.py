"""The typed config and the files in conf/ know the same keys; whatever else is given is refused by name."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from support.tiny_runs import CONF, config, settings
from tunelab.config.blocks import Block, block_fields
from tunelab.config.schema import (
    AdapterConfig,
    CallbacksConfig,
    CrossValidationConfig,
    DataConfig,
    EvalConfig,
    ExtensibleBlock,
    LoggerConfig,
    MemoryConfig,
    MetricsConfig,
    ModelConfig,
    RegularizationConfig,
    RunConfig,
    SearchConfig,
    TrainerConfig,
    TrialConfig,
    legal_ranges,
    value_fault,
)
from tunelab.config.validate import validate_config
from tunelab.data.formats import FORMATS
from tunelab.errors import ConfigError

BLOCKS: dict[str, type[Block]] = {
    "adapter": AdapterConfig,
    "callbacks": CallbacksConfig,
    "cv": CrossValidationConfig,
    "data": DataConfig,
    "eval": EvalConfig,
    "logger": LoggerConfig,
    "memory": MemoryConfig,
    "metrics": MetricsConfig,
    "model": ModelConfig,
    "regularization": RegularizationConfig,
    "search": SearchConfig,
    "trainer": TrainerConfig,
    "trial": TrialConfig,
}
NEEDS = {
    "classification": ["data.train=x", "data.text=t", "data.label=l"],
    "regression": ["data.train=x", "data.text=t", "data.target=y"],
    "instruction": ["data.train=x"],
    "preference": ["data.train=x"],
}


def keys_in_yaml(name: str) -> set[str]:
    """The keys of a block in config.yaml and in every file of its group."""
    main: dict[str, Any] = yaml.safe_load((CONF / "config.yaml").read_text())
    keys = set(main.get(name) or {})
    for path in (CONF / name).rglob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        keys |= set(values.get(name, {}) if name in values else values)
    return keys - {"defaults", "lr"} | ({"space"} if name == "search" else set())


def fields_of(kind: type[Block]) -> set[str]:
    """The fields of a block and of all its kinds."""
    kinds = [kind, *kind.variants.values()] if kind.selector else [kind]
    return {name for one in kinds for name in block_fields(one)}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_key_of_a_yaml_is_a_field_and_every_field_stands_in_a_yaml(name: str) -> None:
    beside_keys = {"targets"} if issubclass(BLOCKS[name], ExtensibleBlock) else set()
    beside_keys |= {"params", "when"} if name == "search" else {"cohen_kappa"} if name == "metrics" else set()

    assert keys_in_yaml(name) - beside_keys == fields_of(BLOCKS[name]) - beside_keys


def test_the_top_level_has_the_keys_of_config_yaml_and_the_blocks() -> None:
    main = set(yaml.safe_load((CONF / "config.yaml").read_text())) - {"defaults", "hydra"}

    assert set(block_fields(RunConfig)) == main | set(BLOCKS) | {
        "optimizer", "scheduler", "module", "default_lr",
    }  # fmt: skip


def test_the_formats_of_records_are_those_that_can_be_read() -> None:
    assert value_fault("data.format", "auto") is None
    assert all(value_fault("data.format", name) is None for name in FORMATS)
    assert set(FORMATS) | {"auto"} == set(
        str(value_fault("data.format", "xxxxxxxx")).partition("one of ")[2].split(", ")
    )


@pytest.mark.parametrize("task", NEEDS)
def test_a_config_is_written_as_it_was_read(task: str) -> None:
    words = [f"data={task}", *NEEDS[task], "data.limit=7", "adapter=lora", "regularization=strong", "model.freeze=[a]"]
    composed, values = config(*words), settings(*words).as_dict()

    for name, block in composed.items():
        assert name in values
        if isinstance(values[name], dict):
            assert list(values[name].items()) == list(OmegaConf.to_container(block, resolve=True).items()), name
    assert list(values["data"])[:2] == ["task", "train"] and values["data"]["limit"] == 7


def test_what_code_changes_is_written_too() -> None:
    run = settings("cv.folds=5")

    changed = replace(run, cv=replace(run.cv, fold=2), adapter=replace(run.adapter, layer_decay=0.5))

    assert changed.as_dict()["cv"] == {"folds": 5, "fold": 2, "group": None}
    assert "rank" not in changed.as_dict()["adapter"] and changed.as_dict()["adapter"]["layer_decay"] == 0.5


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("+data.trian=x.jsonl", "data.trian is no setting; did you mean 'train'"),
        ("+eval.test_row=3", "did you mean 'test_rows'"),
        ("+model.widht=3", "model.widht is no setting; did you mean 'weights'"),
        ("+trainer.device=2", "did you mean 'devices'"),
        ("+callbacks.patient=2", "did you mean 'patience'"),
        ("+logger.api=2", "logger.api is no setting"),
        ("+search.trails=2", "did you mean 'trials'"),
        ("+trial.until_step=2", "did you mean 'until'"),
        ("+data.split.tets=0.2", "did you mean 'test'"),
        ("+data.columns.promt=q", "did you mean 'prompt'"),
        ("+search.effect.on=lr", "search.effect.on is no setting"),
        ("+adapter.rank=8", "adapter.rank means nothing with adapter.kind=full"),
        ("trainer.devices=[a]", "trainer.devices=a is not a number"),
        ("data.workers=null", "data.workers=null: it needs a value, such as 0"),
        ("data.workers=1.5", "data.workers=1.5 counts"),
        ("test=perhaps", "test=perhaps is neither true nor false"),
        ("model.freeze=embed", r"model.freeze=embed is no list; write \[embed\]"),
        ("eval=3", "eval=3 is no block of settings"),
        ("+callbacks._target_=lab.Bell", r"_target_=lab\.Bell has no name.*\+callbacks@callbacks\.mine=FILE"),
        ("callbacks.patience=0", "out of range; it must be at least 1"),
        ("search.space.params=3", "search.space.params=3 is no mapping"),
    ],
)  # fmt: skip
def test_an_unknown_key_or_a_value_of_another_type_is_refused_in_any_block(override: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        settings(override)


def test_faults_of_every_kind_stand_in_one_list() -> None:
    wrong = ["lr=nan", "+data.foo=1", "model.keep=top", "eval.batch_size=0", "optimizer._target_=os.system", "mode=up"]

    with pytest.raises(ConfigError) as fault:
        settings(*wrong)

    for part in ("lr=nan", "data.foo", "model.keep=top", "eval.batch_size=0", "os.system", "mode=up"):
        assert part in str(fault.value)


def test_whole_numbers_may_be_written_as_floats_and_floats_as_whole_numbers() -> None:
    run = settings("eval.max_new_tokens=1e2", "trainer.gradient_clip_val=2")

    assert (run.eval.max_new_tokens, run.trainer.gradient_clip_val) == (100, 2)


def test_a_share_of_an_epoch_stays_a_share_and_a_count_of_steps_a_count() -> None:
    one, other = settings("trainer.val_check_interval=1.0"), settings("trainer.val_check_interval=1")

    assert isinstance(one.trainer.val_check_interval, float) and isinstance(other.trainer.val_check_interval, int)


def test_a_value_is_legal_if_any_kind_of_its_block_takes_it() -> None:
    assert value_fault("model.depth", 2) is None and value_fault("data.label_smoothing", 0.1) is None
    assert "out of range" in str(value_fault("model.width", 0))
    assert "out of range" in str(value_fault("scheduler.warmup", -1))
    assert value_fault("model", "starter") is None and value_fault("no.such.key", 3) is None
    assert legal_ranges()["lr"] == (0, 100) and legal_ranges()["optimizer.momentum"] == (0, 0.999999)


def test_a_run_folder_that_lacks_newer_keys_is_read_with_neutral_ones() -> None:
    stored = config("adapter=prompt")
    OmegaConf.set_struct(stored, False)
    for block, key in (("callbacks", "snapshots"), ("regularization", "ema"), ("data", "near_duplicates")):
        del stored[block][key]
    del stored["cv"]

    run = validate_config(stored, for_training=False)

    assert (run.callbacks.snapshots, run.regularization.ema, run.cv.folds) == (0, 0.0, None)
    assert "snapshots" not in run.as_dict()["callbacks"]


def test_reading_a_trained_run_needs_no_optimizer() -> None:
    stored = config("optimizer._target_=some_lab.Optimizer")

    assert validate_config(stored, for_training=False).optimizer.target == "some_lab.Optimizer"
    with pytest.raises(ConfigError, match="not allowed"):
        validate_config(stored)


def test_schema_and_validator_load_no_torch() -> None:
    code = "import sys; import tunelab.config.schema, tunelab.config.validate; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
