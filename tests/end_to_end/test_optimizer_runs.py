"""Every optimizer and schedule in whole runs: resumed bit for bit, in every company, and on the built-in model."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.resumed_runs import Watch, overrides, stopped_and_resumed, whole
from support.tiny_runs import CONF, MODEL, QUIET, instructions, settings
from tunelab.models.load_model import load_tokenizer
from tunelab.optim.factory import optimizer_builder
from tunelab.optim.lbfgs import LBFGS
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import build_model, build_task
from tunelab.training.run import fine_tune

OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml") if path.stem != "adamw_8bit")  # a GPU's
SCHEDULERS = sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml"))
METHODS = sorted(path.stem for path in (CONF / "regularization").glob("*.yaml"))
WITH_MEMORY = [
    "schedule_free_adamw",
    "muon",
    "lbfgs",
]  # whose state is ours; the rest is torch's and takes the slow suite
PAIRS = [(optimizer, SCHEDULERS[place % len(SCHEDULERS)]) for place, optimizer in enumerate(OPTIMIZERS)]


def resumes(optimizer: str, scheduler: str, tmp_path: Path) -> None:
    given = [part for part in overrides(tmp_path) if not part.startswith("lr=")]
    given += [f"optimizer={optimizer}", f"scheduler={scheduler}"]
    watch, one = whole(tmp_path, given)
    seen, other = stopped_and_resumed(tmp_path, given, [Watch(4), Watch(9)])
    assert seen == watch.seen
    left, right = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (one, other))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert RunDirectory(one).read_scores() == RunDirectory(other).read_scores()


@pytest.mark.parametrize("optimizer", WITH_MEMORY)
def test_an_optimizer_with_a_memory_of_its_own_resumes_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    resumes(optimizer, "constant", tmp_path)


def test_a_schedule_that_follows_validation_resumes_bit_for_bit(tmp_path: Path) -> None:
    resumes("sgd", "plateau", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "scheduler"), PAIRS)
def test_every_optimizer_and_every_schedule_resumes_bit_for_bit(optimizer: str, scheduler: str, tmp_path: Path) -> None:
    resumes(optimizer, scheduler, tmp_path)


def test_a_run_with_muon_makes_the_steps_of_layer_matrices_orthogonal_and_of_nothing_else() -> None:
    run = settings("optimizer=muon", "model=scratch", "model.depth=2", "model.tied=false")
    model = build_model(run, build_task(run), load_tokenizer(run.model))

    made = optimizer_builder(model, run)(list(model.parameters()))

    inside = {id(weight) for group in made.param_groups if group["orthogonal"] for weight in group["params"]}
    found = {name for name, weight in model.named_parameters() if id(weight) in inside}
    assert len(found) == 2 * 7
    assert found == {name for name, weight in model.named_parameters() if ".layers." in name and weight.ndim == 2}


def test_each_look_of_a_line_search_meets_the_same_dropout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a step that evaluates the loss twice and moves nothing
    seen: list[tuple[Tensor, Tensor]] = []

    def look_twice(self: LBFGS, closure: Callable[[], Tensor]) -> None:
        looks = []
        for _ in range(2):
            loss = closure().detach()
            looks.append(torch.cat([loss[None], *[p.grad.flatten() for g in self.param_groups for p in g["params"]]]))
        seen.append((looks[0], looks[1]))

    monkeypatch.setattr(LBFGS, "step", look_twice)
    given = ["optimizer=lbfgs", "regularization.dropout=0.5", "regularization.stochastic_depth=0.5", *MODEL, *QUIET]
    data = ["data=instruction", f"data.train={instructions(tmp_path)}", "data.split.test=0", "micro_tokens=100"]
    fine_tune(settings(*given, *data, "max_steps=2", "test=false", "save=false"), tmp_path / "run")

    # Then both see the same loss and gradient, and another step sees others
    assert len(seen) == 2
    for one, other in seen:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(seen[0][0], seen[1][0])


def all_pairs() -> list[tuple[str, str, str]]:
    """Few triples in which any two of optimizer, schedule and method meet (a greedy covering array)."""
    wanted = {("os", *pair) for pair in product(OPTIMIZERS, SCHEDULERS)}
    wanted |= {("om", *pair) for pair in product(OPTIMIZERS, METHODS)}
    wanted |= {("sm", *pair) for pair in product(SCHEDULERS, METHODS)}
    found: list[tuple[str, str, str]] = []
    for optimizer, method in product(OPTIMIZERS, METHODS):
        covers = {s: {("os", optimizer, s), ("sm", s, method)} & wanted for s in SCHEDULERS}
        scheduler = max(SCHEDULERS, key=lambda s: len(covers[s]))
        found.append((optimizer, scheduler, method))
        wanted -= {("om", optimizer, method)} | covers[scheduler]
    rest = [(one, other, "none") if kind == "os" else ("adamw", one, other) for kind, one, other in sorted(wanted)]
    return found + rest


def test_the_triples_bring_any_two_options_together() -> None:
    triples = all_pairs()
    for first, second, options in (
        (0, 1, (OPTIMIZERS, SCHEDULERS)),
        (0, 2, (OPTIMIZERS, METHODS)),
        (1, 2, (SCHEDULERS, METHODS)),
    ):
        assert {(triple[first], triple[second]) for triple in triples} == set(product(*options))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return instructions(tmp_path_factory.mktemp("pairs"))


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "scheduler", "method"), all_pairs())
def test_any_optimizer_goes_with_any_schedule_and_any_regularization(
    optimizer: str, scheduler: str, method: str, records: Path, tmp_path: Path
) -> None:
    model = ["model=starter"] if method == "mixout" else MODEL  # mixout falls back to pretrained weights
    words = [f"optimizer={optimizer}", f"scheduler={scheduler}", f"regularization={method}"]
    small = ["data=instruction", f"data.train={records}", "max_steps=3", "batch_size=6", "test=false", "save=false"]
    given = [*words, *small, *model, *QUIET, "eval.generate=false"]
    fine_tune(settings(*given), tmp_path / "run")
    assert RunDirectory(tmp_path / "run").read_manifest()["status"] == "finished"
    assert RunDirectory(tmp_path / "run").read_scores()["val/loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "name"), [*(("optimizer", n) for n in OPTIMIZERS), *(("scheduler", n) for n in SCHEDULERS)]
)
def test_the_built_in_model_learns_under_each(group: str, name: str, tmp_path: Path) -> None:
    given = [*QUIET, f"{group}={name}", "data.limit=300", "max_epochs=2", "eval.generate=false", "save=false"]
    fine_tune(settings(*given, "eval.base=true", "eval.test_rows=20"), tmp_path / "run")
    scores = RunDirectory(tmp_path / "run").read_scores()
    left = 0.5 if name == "radam" else 0.25  # its first steps are held back, and there are twenty
    assert scores["test/loss"] < left * scores["base/loss"]
