"""Settings of an optimizer that would change nothing, or make no sense, are reported before anything loads."""

import pytest
import torch

from support.tiny_models import decoder
from support.tiny_runs import config, settings
from tunelab.config.schema import RegularizationConfig
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError
from tunelab.regularization.model_support import regularization_notes

REFUSED = {
    "+optimizer.weight_decay=0.5": "would change nothing: .* set regularization.weight_decay=0.5",
    "optimizer.lr=0.5": "optimizer.lr=0.5 beside lr=0.001: .* set lr=0.5",
    "optimizer.betas=null": r"optimizer.betas=null: it needs a value, such as \(0.9, 0.999\)",
    "optimizer=muon optimizer.ns_steps=2.5": "optimizer.ns_steps=2.5 counts",
    "optimizer=lbfgs optimizer.max_iter=2.5": "optimizer.max_iter=2.5 counts",
    "optimizer=lbfgs optimizer.tolerance_grad=much": "optimizer.tolerance_grad=much is not a number",
    "+scheduler.total=5": "scheduler.total is filled in by the run; it takes min_lr_ratio, warmup",
    "+scheduler.step=5": "scheduler.step is filled in by the run",
    "scheduler.min_lr_ratio=null": "scheduler.min_lr_ratio=null: it needs a value, such as 0.0",
    "scheduler=wsd scheduler.shape=null": "scheduler.shape=null: it needs a value, such as linear",
    "scheduler=inverse_sqrt scheduler.timescale=2.5": "scheduler.timescale=2.5 is neither a share",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_would_change_nothing_or_break_later_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[words]):
        validate_config(config(*words.split()))


def test_null_is_kept_where_it_means_something() -> None:
    assert settings("scheduler=inverse_sqrt", "scheduler.timescale=null").scheduler.arguments["timescale"] is None
    assert settings("+optimizer.foreach=null").optimizer.arguments["foreach"] is None


def test_a_line_search_brings_no_decay_but_keeps_one_that_is_asked_for() -> None:
    assert settings("optimizer=lbfgs").regularization == RegularizationConfig()
    assert settings("optimizer=lbfgs", "regularization=l2").regularization.weight_decay == 0.01


def test_a_penalty_that_outweighs_the_loss_is_told_with_its_size() -> None:
    model, lbfgs = decoder("llama"), settings("optimizer=lbfgs").optimizer
    learned = torch.cat([weight.detach().flatten() for weight in model.parameters() if weight.ndim >= 2])

    [told] = regularization_notes(model, RegularizationConfig(weight_decay=0.2), lbfgs)

    assert f"adds {0.1 * float(learned @ learned):.3g} to the loss" in told
    assert regularization_notes(model, RegularizationConfig(weight_decay=1e-5), lbfgs) == []
    assert regularization_notes(model, RegularizationConfig(weight_decay=0.2), settings().optimizer) == []


def test_a_bound_that_no_row_reaches_is_told_with_the_longest() -> None:
    model = decoder("gpt2")  # whose matrices lie the other way
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[:, 5] = 4.0  # 32 inputs of one unit

    longest, adamw = 4 * 32**0.5, settings().optimizer
    [told] = regularization_notes(model, RegularizationConfig(max_norm=longest + 0.1), adamw)

    assert f"the longest is {longest:.3g} now" in told
    assert regularization_notes(model, RegularizationConfig(max_norm=longest - 0.1), adamw) == []
