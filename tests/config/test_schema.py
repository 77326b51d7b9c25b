"""Illegal settings are refused before anything loads, all at once, each with a way out."""

import pytest

from support.tiny_runs import config
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError


def test_all_faults_are_told_at_once() -> None:
    given = ["lr=-1", "batch_size=0", "scheduler.warmup=-3", "mode=mni", "data.too_long=cut", "+optimizer.momentm=0.9"]

    with pytest.raises(ConfigError) as told:
        validate_config(config(*given))

    text = str(told.value)
    for part in ("lr=-1", "batch_size=0", "scheduler.warmup=-3", "did you mean 'min'", "data.too_long=cut", "momentm"):
        assert part in text
    assert told.value.exit_status == 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("lr=abc", "lr=abc is not a number$"),
        ("lr=null", "lr"),
        ("lr=nan", "not a number"),
        ("batch_size=2.5", "batch_size"),
        ("seed=-1", "seed=-1 is out of range"),
        ("+sede=1", "did you mean 'seed'"),
        ("data.train=???", "data.train is not set"),
        ("scheduler.warmup=2.5", "neither a share of the run"),
        ("data=classification", r"data\.text is not set; name the column(.|\n)*data\.label is not set"),
        ("data.limit=0", "at least 1"),
        ("data.max_tokens=-5", "at least 1"),
        ("data.format=alpacca", "did you mean 'alpaca'"),
        ("optimizer._target_=torch.optim.AdmW", "does not exist"),
        ("optimizer._target_=torch.load", "not allowed"),
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed is unknown"),
    ],
)
def test_an_illegal_value_is_named(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate_config(config(override))


def test_zero_is_a_seed() -> None:
    assert validate_config(config("seed=0")).seed == 0
