"""Every optimizer takes the steps it is named after: against torch, or against its paper written out."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from support.small_loss import DECAY, RATE, loss_of, weights
from support.tiny_runs import CONF, settings
from tunelab.config import instantiate
from tunelab.config.schema import TargetConfig
from tunelab.errors import ConfigError
from tunelab.optim.factory import check_optimizer_requirements, takes_one_kernel
from tunelab.optim.lbfgs import LBFGS
from tunelab.optim.lion import Lion
from tunelab.optim.muon import Muon
from tunelab.optim.param_groups import weight_decay_groups

NAMES = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))
STEPS = 12
TORCH: dict[str, Callable[[Any], Optimizer]] = {  # as its documentation has it, decay on matrices alone
    "adamw": lambda groups: torch.optim.AdamW(groups, RATE, (0.9, 0.999), 1e-8),
    "adam": lambda groups: torch.optim.Adam(groups, RATE, (0.9, 0.999), 1e-8, decoupled_weight_decay=False),
    "sgd": lambda groups: torch.optim.SGD(groups, RATE, momentum=0.9, nesterov=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, RATE, alpha=0.99, eps=1e-8),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, RATE),
    "adadelta": lambda groups: torch.optim.Adadelta(groups, RATE),
    "nadam": lambda groups: torch.optim.NAdam(groups, RATE, decoupled_weight_decay=True),
    "radam": lambda groups: torch.optim.RAdam(groups, RATE, decoupled_weight_decay=True),
    "adafactor": lambda groups: torch.optim.Adafactor(groups, RATE),
}


def trained(make: Callable[[list[Parameter]], Optimizer], steps: int = STEPS) -> list[Parameter]:
    parameters = weights()
    optimizer = make(parameters)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(parameters, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return parameters


def ours(name: str) -> Callable[[list[Parameter]], Optimizer]:
    """The optimizer of a file in conf/, at the rate of these tests."""
    return lambda parameters: instantiate.make_factory(block(name))(weight_decay_groups(parameters, DECAY))


@cache
def block(name: str) -> TargetConfig:
    return settings(f"optimizer={name}", f"lr={RATE}").optimizer


@pytest.mark.parametrize("name", TORCH)
def test_a_file_of_conf_takes_the_steps_of_torch(name: str) -> None:
    expected = trained(lambda parameters: TORCH[name](weight_decay_groups(parameters, DECAY)))
    for mine, theirs in zip(trained(ours(name)), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_on_a_processor_goes_through_one_kernel_and_takes_the_same_steps(name: str) -> None:
    assert takes_one_kernel(block(name), weights())
    fused = trained(lambda own: instantiate.make_factory(block(name), fused=True)(weight_decay_groups(own, DECAY)))
    for mine, theirs in zip(fused, trained(ours(name)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_other_optimizers_and_a_choice_of_the_user_are_left_alone() -> None:
    assert not any(takes_one_kernel(block(name), weights()) for name in NAMES if name not in ("adam", "adamw"))
    assert not takes_one_kernel(settings("optimizer=adamw", "+optimizer.fused=false").optimizer, weights())
    assert not takes_one_kernel(block("adamw"), [Parameter(weight.to("meta")) for weight in weights()])


def test_every_file_has_a_counterpart_here_or_below() -> None:
    assert set(NAMES) == {*TORCH, "lion", "muon", "schedule_free_adamw", "lbfgs", "adamw_8bit"}


def test_lion_steps_as_its_paper_says() -> None:
    first, second, decay = 0.9, 0.99, 0.1
    parameters = weights()
    momenta = [torch.zeros_like(weight) for weight in parameters]
    for step in range(STEPS):
        gradients = torch.autograd.grad(loss_of(parameters, step), parameters)
        with torch.no_grad():
            for weight, gradient, momentum in zip(parameters, gradients, momenta, strict=True):
                update = torch.sign(first * momentum + (1 - first) * gradient)
                weight.sub_(RATE * (update + (decay if weight.ndim == 2 else 0) * weight))
                momentum.copy_(second * momentum + (1 - second) * gradient)
    found = trained(lambda own: Lion(weight_decay_groups(own, decay), RATE, (first, second)))
    for mine, theirs in zip(found, parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_muon_is_torchs_on_hidden_matrices_and_adamw_on_all_else() -> None:
    def theirs(own: list[Parameter]) -> Any:
        hidden, rest = weight_decay_groups(own[:1], DECAY), weight_decay_groups(own[1:], DECAY)
        muon = torch.optim.Muon(hidden, RATE, momentum=0.95, nesterov=True, ns_steps=5, adjust_lr_fn="match_rms_adamw")
        return Both(muon, torch.optim.AdamW(rest, RATE))

    found = trained(lambda own: Muon(weight_decay_groups(own, DECAY), hidden=own[:1], lr=RATE))
    for mine, other in zip(found, trained(theirs), strict=True):
        torch.testing.assert_close(mine, other)


class Both:
    """Two optimizers as one."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()


def test_muon_without_a_hidden_matrix_is_refused() -> None:
    with pytest.raises(ConfigError, match="optimizer=adamw"):
        Muon(weight_decay_groups(weights(), 0.0), hidden=[])


def test_lbfgs_is_torchs_on_the_loss_with_its_penalty() -> None:
    def closure_for(own: list[Parameter], optimizer: Optimizer, penalty: float) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(own, 0) + penalty / 2 * sum(w.square().sum() for w in own if w.ndim == 2)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return closure

    mine, theirs = ([Parameter(weight.detach().double()) for weight in weights()] for _ in range(2))
    one = LBFGS(weight_decay_groups(mine, DECAY), max_iter=4)
    other = torch.optim.LBFGS(
        theirs, 1.0, max_iter=4, tolerance_grad=1e-7, history_size=10, line_search_fn="strong_wolfe"
    )
    for _ in range(3):
        one.step(closure_for(mine, one, 0.0))
        other.step(closure_for(theirs, other, DECAY))  # type: ignore[no-untyped-call]
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_eight_bits_without_package_or_gpu_are_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instantiate, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install bitsandbytes; optimizer=adamw"):
        check_optimizer_requirements(block("adamw_8bit"))
    monkeypatch.setattr(instantiate, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"CUDA GPU, and there is none here; optimizer=adamw"):
        check_optimizer_requirements(block("adamw_8bit"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"trainer.accelerator=cpu uses none"):
        check_optimizer_requirements(block("adamw_8bit"), "cpu")
    check_optimizer_requirements(block("adamw_8bit"))


@pytest.mark.parametrize("name", NAMES)
def test_each_file_brings_two_rates_and_tells_its_memory(name: str) -> None:
    text = (CONF / "optimizer" / f"{name}.yaml").read_text()
    assert "  tiny: " in text
    assert "  base: " in text
    assert "optimizer state" in text.partition("\nlr:")[0]


def test_no_vector_decays_whatever_its_name() -> None:
    for name in sorted({*TORCH} - {"adafactor"}):
        parameters = weights()
        optimizer = ours(name)(parameters)
        for weight in parameters:
            weight.grad = torch.zeros_like(weight)
        before = parameters[2].detach().clone()
        optimizer.step()
        assert torch.equal(parameters[2], before), name
