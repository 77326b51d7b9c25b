"""Nothing outside the allow-list is ever called, whatever a config says."""

from pathlib import Path

import pytest
import torch

from tunelab.config import instantiate
from tunelab.config.schema import TargetConfig
from tunelab.errors import ConfigError

PAYLOADS = [
    "os.system", "posix.system", "logging.os.system", "builtins.eval", "builtins.open", "subprocess.run",
    "shutil.rmtree", "torch.load", "torch.serialization.load", "torch.hub.load", "pandas.read_pickle", "numpy.load",
    "pathlib.Path.write_text", "setuptools._distutils.spawn.spawn", "lightning.fabric.utilities.cloud_io._load",
    "hydra.utils.get_method", "torch.optim.adamw.torch.load", "torch.optim._functional.torch.hub.load",
    "tunelab.optim.schedules.__builtins__.eval", "lightning.pytorch.callbacks.timer.os.system",
]  # fmt: skip


@pytest.mark.parametrize("target", PAYLOADS)
def test_a_dangerous_target_is_refused(target: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not allowed|only borrows|does not exist"):
        instantiate.make_factory(TargetConfig(target=target))


def test_a_misspelt_argument_is_told_with_the_right_one() -> None:
    faults = instantiate.target_faults(
        TargetConfig(target="torch.optim.SGD", arguments={"momentm": 0.9, "lr": 0.1}), "optimizer"
    )

    assert faults == ["optimizer.momentm is unknown to torch.optim.SGD; did you mean 'momentum'?"]


def test_settings_reach_the_object() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))

    made = instantiate.make_factory(TargetConfig(target="torch.optim.SGD", arguments={"lr": 0.25, "momentum": 0.5}))(
        [weight]
    )

    assert isinstance(made, torch.optim.SGD)
    assert made.param_groups[0]["lr"] == 0.25 and made.param_groups[0]["momentum"] == 0.5
