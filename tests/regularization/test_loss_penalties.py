"""Penalties of one's own: functions of the model whose value is added to the loss of each step."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from support.tiny_runs import settings
from support.uneven_rows import tiny_model
from tunelab.config import plugins
from tunelab.errors import ConfigError
from tunelab.regularization.loss_penalties import LossPenalties

LAB = """
class Drift:
    def __init__(self, model, strength=1.0):
        self.start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self.strength = strength

    def __call__(self, model):
        return self.strength * sum((w - self.start[name]).square().sum() for name, w in model.named_parameters())


def late(model, strength, progress):
    return strength * progress


def rows(model):
    return model.get_input_embeddings().weight.norm(dim=1)


class Silent:
    pass
"""


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody's own, allowed."""
    (tmp_path / "penaltylab.py").write_text(LAB)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_packages", ["penaltylab"])
    monkeypatch.delitem(sys.modules, "penaltylab", raising=False)


def penalties(model: PreTrainedModel, name: str, more: str = "", total: int = 10) -> LossPenalties:
    word = f"+regularization.mine={{_target_: penaltylab.{name}{more}}}"
    return LossPenalties.from_config(settings(word).regularization, model, total)


def test_a_class_may_remember_the_weights_before_training() -> None:
    model = tiny_model()
    drift = penalties(model, "Drift", ", strength: 2.0")
    assert drift.compute(model, 0) == 0
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 3.0  # type: ignore[operator]

    value = drift.compute(model, 1)

    assert isinstance(value, torch.Tensor) and value.requires_grad and not drift.values["mine"].requires_grad
    assert value.item() == float(drift.total()) == float(drift.values["mine"]) == pytest.approx(18.0)


def test_a_function_that_names_progress_gets_the_share_of_the_run_that_is_done() -> None:
    late = penalties(tiny_model(), "late", ", strength: 4.0")

    assert [float(late.compute(tiny_model(), step)) for step in (0, 5, 9)] == pytest.approx([0.0, 2.0, 3.6])


def test_penalties_that_cannot_work_are_refused_in_words() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match="regularization.mine: penaltylab.late refuses its arguments: .*strength"):
        penalties(model, "late")
    with pytest.raises(ConfigError, match="penaltylab.Silent makes nothing that can be called"):
        penalties(model, "Silent")
    with pytest.raises(ConfigError, match=r"mine gave a tensor of shape \(50,\); a penalty is one number"):
        penalties(model, "rows").compute(model, 0)
    with pytest.raises(ConfigError, match="regularization.mine.stength is unknown .* did you mean 'strength'"):
        settings("+regularization.mine={_target_: penaltylab.late, stength: 1}")
    with pytest.raises(ConfigError, match="regularization.mine.progress is filled in by the run"):
        settings("+regularization.mine={_target_: penaltylab.late, strength: 1, progress: 1}")
    with pytest.raises(ConfigError, match=r"not allowed.*plugins=\[otherlab\].*TUNELAB_PLUGINS=otherlab"):
        settings("+regularization.mine={_target_: otherlab.f}")
    with pytest.raises(ConfigError, match="regularization.l3 is no setting"):
        settings("+regularization.l3=0.1")
