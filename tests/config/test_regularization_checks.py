"""A setting without an effect is refused by name, before anything is read or as soon as the model is known."""

from pathlib import Path

import pytest

from support.tiny_models import decoder
from support.tiny_runs import CONF, MODEL, QUIET, config, instructions, settings
from tunelab.cli.config_comments import config_keys
from tunelab.config.blocks import block_fields
from tunelab.config.schema import RegularizationConfig
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError
from tunelab.models.architecture import describe_dropout, dropout_rates, set_dropout
from tunelab.regularization.model_support import check_model_support
from tunelab.training.run import fine_tune

LABELS = ["data=classification", "data.train=x.csv", "data.text=text", "data.label=label"]
NUMBERS = ["data=regression", "data.train=x.csv", "data.text=text", "data.target=y"]
PAIRS = ["data=preference", "data.train=x.jsonl"]
REFUSED = {
    "two averages": (["regularization=[ema,swa]"], "two averages of the same weights"),
    "smoothing of numbers": ([*NUMBERS, "regularization=label_smoothing"], "task=regression: numbers have no labels"),
    "smoothing of pairs": ([*PAIRS, "regularization=label_smoothing"], "data.label_smoothing is its counterpart"),
    "R-Drop of pairs": ([*PAIRS, "regularization=rdrop"], "rdrop=1 with data.task=preference"),
    "smoothing twice": ([*LABELS, "regularization=label_smoothing", "data.label_smoothing=0.1"], "the same thing"),
    "mixout from scratch": (["model=scratch", "regularization=mixout"], "starts from random ones"),
    "mixout of norms": (["adapter=layernorm", "regularization=mixout"], "no pretrained matrix"),
    "a misspelt key": (["+regularization.mix_out=0.1"], "did you mean 'mixout'"),
    "a decay of one": (["regularization.ema=1"], "regularization.ema=1 is out of range"),
    "no number": (["regularization.rdrop=yes"], "regularization.rdrop=yes is not a number"),
}


@pytest.mark.parametrize("case", REFUSED, ids=[name.replace(" ", "-") for name in REFUSED])
def test_a_combination_without_meaning_is_refused(case: str) -> None:
    given, told = REFUSED[case]

    with pytest.raises(ConfigError, match=told) as fault:
        validate_config(config(*given))
    assert fault.value.exit_status == 2


def test_all_faults_of_the_block_are_told_at_once() -> None:
    given = ["regularization.l1=-1", "regularization.mixout=0.5", "model=scratch", "+regularization.emma=0.9"]

    with pytest.raises(ConfigError, match=r"(?s)l1=-1.*did you mean 'ema'.*starts from random ones"):
        validate_config(config(*given))


def test_methods_combine_and_keys_have_the_last_word() -> None:
    both = settings("regularization=[l2,label_smoothing]", "regularization.l1=1e-5").regularization
    assert (both.weight_decay, both.label_smoothing, both.l1) == (0.01, 0.1, 1e-5)

    assert settings("regularization=l1").regularization.weight_decay == 0  # what is chosen replaces weight decay
    assert settings("regularization=strong", "regularization.ema=0").regularization.ema == 0


def test_the_neutral_file_names_every_key_at_the_value_that_does_nothing() -> None:
    assert settings("regularization=none").regularization == RegularizationConfig()
    names = [key.name for key in config_keys((CONF / "regularization" / "none.yaml").read_text())]
    assert set(names) == set(block_fields(RegularizationConfig)) - {"targets"}
    assert set(settings().regularization.as_dict()) == set(names)


def test_each_option_switches_on_what_it_is_called() -> None:
    options = sorted((CONF / "regularization").glob("*.yaml"))
    assert {"none", "l2", "strong"} < {path.stem for path in options}
    for path in options:
        found = settings(f"regularization={path.stem}").regularization
        assert (found == RegularizationConfig()) is (path.stem == "none"), path.stem


def test_a_run_from_before_a_key_existed_reads_as_neutral() -> None:
    faults = list[str]()
    old = RegularizationConfig.parse({"weight_decay": 0.05, "dropout": None, "ema": None}, "regularization", faults)

    assert (old, faults) == (RegularizationConfig(weight_decay=0.05), [])


def test_two_passes_without_dropout_are_refused() -> None:
    with pytest.raises(ConfigError, match="drops nothing"):
        check_model_support(decoder("llama"), RegularizationConfig(rdrop=1.0), head="causal")
    check_model_support(decoder("llama", attention_dropout=0.1), RegularizationConfig(rdrop=1.0), head="causal")
    check_model_support(decoder("llama"), RegularizationConfig(rdrop=1.0, neftune=5.0), head="causal")


def test_a_model_in_which_nothing_fits_is_refused_with_every_reason() -> None:
    model = decoder("llama")
    model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)

    with pytest.raises(ConfigError, match=r"(?s)mixout=0.5.*max_norm=3.*l1=0.1"):
        check_model_support(model, RegularizationConfig(mixout=0.5, max_norm=3, l1=0.1), head="causal")


def test_dropout_is_set_everywhere_or_on_attention_alone() -> None:
    config = decoder("gpt2").config
    set_dropout(config, 0.3, 0.2)
    assert (config.attn_pdrop, config.resid_pdrop, config.embd_pdrop) == (0.2, 0.3, 0.3)

    config = decoder("gpt2").config
    set_dropout(config, None, 0.2)
    assert (config.attn_pdrop, config.resid_pdrop) == (0.2, 0.1)

    config = decoder("llama").config
    set_dropout(config, 0.3, None)
    assert dropout_rates(config) == {"attention_dropout": 0.3}
    assert describe_dropout(config) == "attention_dropout 0.3 (llama drops nothing else)"


def test_a_model_without_that_dropout_says_so(tmp_path: Path) -> None:
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", *MODEL, *QUIET]
    config = decoder("llama").config
    del config.attention_dropout
    with pytest.raises(ConfigError, match=r"(?s)dropout=0.1: llama has no such dropout.*attention_dropout=0.2"):
        set_dropout(config, 0.1, 0.2)

    with pytest.raises(ConfigError, match="drops nothing"):
        fine_tune(settings(*given, "regularization.rdrop=1"), tmp_path / "run")
