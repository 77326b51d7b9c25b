"""A model that cannot be loaded is reported with everything else that is wrong, before anything is read."""

from pathlib import Path

import pytest

from support import warm_processes
from support.paths import ROOT
from support.tiny_runs import config, settings
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError

SCRATCH = ["model=scratch"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([*SCRATCH, "model.activation=gleu"], "model.activation=gleu is unknown; did you mean 'gelu'"),
        ([*SCRATCH, "model.normalisation=batchnorm"], "model.normalisation=batchnorm is unknown"),
        ([*SCRATCH, "model.init=orthogonal"], "model.init=orthogonal is unknown; choose one of normal, xavier"),
        ([*SCRATCH, "model.depth=0"], "model.depth=0 is out of range; it must be at least 1"),
        ([*SCRATCH, "model.depth=2.5"], "model.depth=2.5 counts, so it must be a whole number"),
        ([*SCRATCH, "model.width=130"], "model.width=130 must be a multiple .* try model.width=128"),
        ([*SCRATCH, "model.initial_std=-1"], "model.initial_std=-1 is out of range"),
        ([*SCRATCH, "model.mup=true", "model.normalisation=layernorm"], "take model.normalisation=rmsnorm"),
        ([*SCRATCH, "model.mup=true", "adapter=lora"], "model.mup=true with adapter.kind=lora"),
        ([*SCRATCH, "model.mup=true", "optimizer=sgd"], "model.mup=true with torch.optim.SGD.* take optimizer=adamw"),
        (
            [*SCRATCH, "model.mup=true", "optimizer=rmsprop"],
            "RMSprop and regularization.weight_decay=0.01: this decay is a part of the gradient",
        ),
        ([*SCRATCH, "model.width=null"], "model.width=null: it needs a value"),
        ([*SCRATCH, "model.context=null"], "model.context=null: it needs a value"),
        ([*SCRATCH, "model.initial_std=0"], "model.initial_std=0 is out of range"),
        (
            [*SCRATCH, "model.mup=true", "model.base_width=0"],
            "model.base_width=0 is out of range; it must be at least 1",
        ),
        (
            [*SCRATCH, "model.mup=true", "data=classification", "data.train=x", "data.text=t", "data.label=l"],
            "data.task=classification: .* no head for labels",
        ),
        (["model.keep=top"], "model.keep=top says which layers stay, but not how many; give model.depth=N"),
        (["model.keep=middle", "model.depth=2"], "model.keep=middle is unknown"),
        (["model.depth=2.5"], "model.depth=2.5 counts, so it must be a whole number"),
        (["model.depth=0"], "model.depth=0 is out of range"),
        (["model.depth=2", "model.reinit_top=3"], "model.reinit_top=3 is more than the model.depth=2 layers that stay"),
        (["model.reinit_top=-1"], "model.reinit_top=-1 is out of range"),
        (["model.depth=2", "adapter=qlora"], "model.depth with adapter=qlora"),
        (["model.weights=randm"], "model.weights=randm is unknown; did you mean 'random'"),
    ],
)
def test_a_wish_that_cannot_be_met_is_told_with_a_way_out(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate_config(config(*overrides))


def test_all_faults_are_told_at_once_with_exit_status_2(tmp_path: Path) -> None:
    wishes = ["model=scratch", "model.activation=gleu", "model.width=130", "model.init=he", "lr=-1", "model.mup=maybe"]

    done = warm_processes.run([ROOT / "train.py", *wishes, "logger=none"], tmp_path)

    assert done.returncode == 2
    for name in ("model.activation=gleu", "model.width=130", "model.init=he", "lr=-1", "model.mup=maybe"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_defaults_have_no_faults() -> None:
    for overrides in ([], ["model.depth=2", "model.keep=top"]):
        assert settings(*overrides).model.kind == "pretrained"
    for overrides in (SCRATCH, [*SCRATCH, "model.mup=true"]):
        assert settings(*overrides).model.kind == "scratch"
