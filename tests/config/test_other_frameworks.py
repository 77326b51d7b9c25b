"""First words of users of other frameworks: each is answered with a setting that exists here."""

import re
from pathlib import Path

import pytest

from support.paths import ROOT
from support.tiny_runs import CONF, config
from tunelab.cli.compose_config import compose_run
from tunelab.config.flatten import flatten
from tunelab.config.other_frameworks import ANSWERS
from tunelab.config.overrides import complete_overrides, override_faults
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError

VARIANTS = [
    ["adapter=lora", "data=instruction", "data.train=x"],
    ["data=preference", "data.train=x"],
    ["data=classification", "data.train=x", "data.text=a", "data.label=b"],
]
GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every setting, under any choice of task and adapter."""
    keys = {"hydra.run.dir"}
    for words in VARIANTS:
        keys |= set(flatten(validate_config(config(*words, "logger=wandb")).as_dict(), keep_empty=True))
    return keys


@pytest.mark.parametrize("other", ANSWERS)
def test_the_answer_to_a_name_of_another_framework_names_settings_that_exist(other: str, known: set[str]) -> None:
    typed = re.findall(r"([a-z_]+(?:\.[a-z_]+)*)=(\w*)", ANSWERS[other])

    assert typed or re.search(r"nothing:|tunelab evaluate|-m search|data\.|trainer\.|logger", ANSWERS[other])
    for key, value in typed:
        assert key in known or key in GROUPS, key
        if key in GROUPS and value.islower():
            assert (CONF / key / f"{value}.yaml").is_file(), f"{key}={value}"
    assert other not in known, "a setting of ours needs no answer"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("learning_rate=3e-5", "lr=3e-5"),
        ("ckpt_path=runs/a", "resume=FOLDER"),
        ("train=False", "tunelab evaluate RUN"),
        ("trainer.max_epochs=3", "max_epochs=3"),
        ("data.batch_size=8", "batch_size=8"),
        ("per_device_train_batch_size=4", "micro_tokens"),
        ("+trainer.accumulate_grad_batches=4", "micro_tokens"),
        ("lora_rank=8", "adapter=lora adapter.rank=8"),
        ("val_set_size=0.1", "data.split.validation=0.1"),
        ("tags=[a,b]", "logger.tags=[a,b]"),
    ],
)
def test_a_word_of_another_framework_is_answered_where_it_is_typed(word: str, answer: str) -> None:
    faults = override_faults([word], CONF)
    if not faults:  # one that composes is refused by the schema
        with pytest.raises(ConfigError) as refusal:
            validate_config(config(word))
        faults = [str(refusal.value)]

    assert answer in faults[0]
    assert "no setting" in faults[0]


def test_settings_as_flags_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError) as refusal:
        complete_overrides(["--lr=3e-5", "--per-device-eval-batch-size=2", "optimizer=sgd", "--multirun"])

    message = str(refusal.value)
    assert "type lr=3e-5" in message
    assert "eval.batch_size=2" in message
    assert "${args_no_hyphens}" in message
    assert complete_overrides(["--multirun", "--config-dir=conf", "lr=1"])[0] == "--multirun"


def test_the_translated_config_of_the_page_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "migrate.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "sft.yaml").write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    run = compose_run(["sft.yaml"]).settings

    assert (run.lr, run.batch_size, run.max_epochs, run.adapter.kind) == (1e-4, 32, 3, "lora")
    assert (run.model.kind, run.model.path) == ("pretrained", "my_model")
    assert (run.data.train, run.data.max_tokens) == ("my.jsonl", 2048)


def test_every_word_of_ours_on_the_page_is_a_setting(known: set[str]) -> None:
    page = (ROOT / "docs" / "migrate.md").read_text(encoding="utf-8")
    first_cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    words = [word for cell in first_cells for word in re.findall(r"`([a-z_.]+)(?:=[^`]*)?`", cell)]

    assert len(words) > 20
    assert [word for word in words if word not in known and word not in GROUPS and word != "preference"] == []
