"""Every config composes and is legal; every target takes what it is given."""

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from support.tiny_runs import CONF, config
from tunelab.config import instantiate
from tunelab.config.validate import validate_config

OPTIONS = sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.glob("*/*.yaml"))
NEEDS = {
    "data/instruction": ["data.train=x.jsonl"],
    "data/preference": ["data.train=x.jsonl"],
    "data/classification": ["data.train=x.csv", "data.text=text", "data.label=label"],
    "data/regression": ["data.train=x.csv", "data.text=text", "data.target=y"],
    "model/pretrained": ["model.path=somewhere"],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_is_legal(option: str) -> None:
    group, name = option.split("/")

    run = validate_config(config(f"{group}={name}", *NEEDS.get(option, [])))

    for block in (run.optimizer, run.scheduler):
        assert instantiate.target_faults(block, group) == []


def test_each_optimizer_brings_a_rate_for_each_size_of_model() -> None:
    rates = {
        (optimizer, model): validate_config(config(f"optimizer={optimizer}", f"model={model}")).lr
        for optimizer in ("adamw", "sgd")
        for model in ("starter", "bert_base")
    }

    assert len(set(rates.values())) == 4
    assert rates["sgd", "starter"] > rates["adamw", "starter"] > rates["adamw", "bert_base"]
    assert validate_config(config("optimizer=adamw", "lr=3e-5")).optimizer.arguments["lr"] == 3e-5


def test_a_rate_on_the_command_line_beats_every_file() -> None:
    assert validate_config(config("optimizer=sgd", "lr=0.5", "debug=overfit")).lr == 0.5


@pytest.mark.parametrize("recipe", sorted(CONF.glob("experiment/recipes/*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_says_where_its_rate_comes_from(recipe: Path) -> None:
    head = " ".join(line.lstrip("# ") for line in recipe.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    rate = head.partition("Rate: ")[2]
    assert "measured here" in rate.lower() or "docs/findings.md" in rate
    assert "(estimated" in head or "model: minilm" in recipe.read_text(encoding="utf-8")  # its times were measured


def test_a_comment_never_repeats_a_default() -> None:
    # A comment such as `# default: 5` goes stale in silence.
    GlobalHydra.instance().clear()
    stale = [
        f"{path.name}: {line.strip()}"
        for path in [*CONF.glob("*.yaml"), *CONF.glob("*/*.yaml")]
        for line in Path(path).read_text(encoding="utf-8").splitlines()
        if "# default" in line.lower() or "(default" in line.lower()
    ]
    assert not stale
