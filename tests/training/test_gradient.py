"""The gradient of a step is the same however it is cut, laid out or shared."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from support import warm_processes
from support.paths import SUPPORT
from support.uneven_rows import ROWS, tiny_model, uneven_examples
from tunelab.data.batching import plan_batch
from tunelab.data.examples import IGNORE, Batch, Example
from tunelab.data.loader import BatchLoader
from tunelab.models.packing_support import supports_packing
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL
from tunelab.regularization.loss_penalties import LossPenalties
from tunelab.tasks.instruction import Instruction
from tunelab.training.module import FineTuner, clip_gradients


def reference(model: PreTrainedModel, batch: list[Example], smoothing: float = 0.0) -> dict[str, Tensor]:
    """Every sequence by itself through transformers' own loss, weighted by its tokens."""
    model.zero_grad()
    total = sum(example.loss_weight for example in batch)
    for example in batch:
        if example.loss_weight:
            ids = torch.tensor([example.ids])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
            targets = torch.tensor(example.target[1:])
            how: dict[str, Any] = {"ignore_index": IGNORE, "reduction": "sum", "label_smoothing": smoothing}
            (functional.cross_entropy(logits, targets, **how) / total).backward()
    return gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def ours(
    model: PreTrainedModel, step: Batch, *, packed: bool, smoothing: float = 0.0, penalties: LossPenalties | None = None
) -> dict[str, Tensor]:
    """The module's gradient of one step, before clipping, outside a trainer."""
    model.zero_grad()
    task = Instruction(label_smoothing=smoothing)
    task.packed = packed
    module = FineTuner(
        model, task, optimizer=lambda p: torch.optim.SGD(p, 0.1), schedule=lambda step: 1.0, clip=0, penalties=penalties
    )
    module._trainer = SimpleNamespace(
        strategy=SimpleNamespace(reduce=lambda value, **_: value), world_size=1, global_step=0, global_rank=0
    )  # type: ignore[assignment]
    module._fabric = None
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    module._compute_gradient(step)
    return gradients(model)


def loader(packed: bool, micro_tokens: int, batch_size: int, rank: int = 0, world: int = 1) -> BatchLoader:
    task = Instruction()
    task.packed = packed
    return BatchLoader(
        uneven_examples(), collate=task.collate, filler=task.padding_example(), batch_size=batch_size,
        micro_tokens=micro_tokens, packed=packed, shuffle=True, seed=3, rank=rank, world_size=world,
    )  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize(("micro_tokens", "smoothing"), [(1, 0.0), (60, 0.0), (60, 0.1), (10**6, 0.0)])
def test_the_gradient_does_not_depend_on_how_a_step_is_cut(packed: bool, micro_tokens: int, smoothing: float) -> None:
    # Given uneven rows in steps of 8, of which the last has only 3
    model, examples = tiny_model(), uneven_examples()
    if packed:
        assert supports_packing(model, DOCUMENT_KERNEL)

    for step, plain in zip(loader(packed, micro_tokens, 8), loader(False, 10**6, 8), strict=True):
        rows = [row for micro in plain.micro_batches for row in micro.row_indices.tolist()]

        # When the step is summed over micro-batches, then it is the mean over the tokens of the whole step
        found = ours(model, step, packed=packed, smoothing=smoothing)
        model.set_attn_implementation("sdpa")
        wanted = reference(model, [examples[row] for row in rows], smoothing)
        if packed:
            model.set_attn_implementation("documents")
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro_tokens", [1, 60, 10**6])
def test_a_penalty_counts_once_for_a_step_however_it_is_cut(micro_tokens: int) -> None:
    # Given the gradient of every row by itself, and that of a penalty alone
    model, examples = tiny_model(), uneven_examples()
    penalties = LossPenalties({"square": lambda model, _: 0.5 * sum(w.square().sum() for w in model.parameters())})
    step = next(iter(loader(False, micro_tokens, 8)))
    rows = [row for micro in step.micro_batches for row in micro.row_indices.tolist()]
    right = {
        name: gradient + model.get_parameter(name).detach()
        for name, gradient in reference(model, [examples[row] for row in rows]).items()
    }

    with_penalty = ours(model, step, packed=False, penalties=penalties)

    for name, gradient in right.items():
        torch.testing.assert_close(with_penalty[name], gradient, rtol=1e-5, atol=1e-6)


def test_a_mean_of_micro_batch_means_would_be_caught() -> None:
    # Given the error that frameworks make: each micro-batch divided by its own tokens
    model = tiny_model()
    step = next(iter(loader(False, 60, 8)))
    assert len(step.micro_batches) > 2
    right = ours(model, step, packed=False)

    counts = [int((micro.targets != IGNORE).sum()) for micro in step.micro_batches]
    model.zero_grad()
    task = Instruction()
    for micro, count in zip(step.micro_batches, counts, strict=True):
        (task.loss_sum(task.logits(model, micro), micro) / max(count, 1) / len(counts)).backward()
    wrong = gradients(model)

    # Then it differs far beyond the tolerance of the test above
    name = "model.embed_tokens.weight"
    assert (right[name] - wrong[name]).abs().max() > 1e-3


def test_ranks_share_a_step_without_repeating_or_losing_a_row() -> None:
    for world in (1, 2, 3, 5):  # the last step has three rows: of five ranks two go without
        for steps in zip(*(loader(False, 60, 8, rank, world) for rank in range(world)), strict=True):
            rows = [
                row for step in steps for micro in step.micro_batches for row in micro.row_indices.tolist() if row >= 0
            ]
            assert len(rows) == len(set(rows)) and len({step.loss_weight for step in steps}) == 1
        rows = [
            row for rank in range(world) for step in loader(False, 60, 8, rank, world)
            for micro in step.micro_batches for row in micro.row_indices.tolist() if row >= 0
        ]  # fmt: skip
        assert sorted(rows) == list(range(ROWS))


@pytest.mark.parametrize(("seen", "left"), [(0, 4), (1, 3), (4, 4)])
def test_a_loader_goes_on_where_it_was_and_after_an_epochs_end_with_a_whole_one(seen: int, left: int) -> None:
    before, after = loader(False, 60, 8), loader(False, 60, 8)
    for _ in zip(range(seen), before, strict=False):
        pass

    after.load_state_dict(before.state_dict())

    assert len(list(after)) == left


def test_ranks_get_nearly_equal_numbers_of_tokens() -> None:
    # Given 64 rows whose lengths fall steadily
    lengths = list(range(64, 0, -1))

    def share(rank: int) -> int:
        plan = plan_batch(range(64), lengths, [1.0] * 64, micro_tokens=1, packed=True, rank=rank, world_size=2)
        return sum(lengths[i] for micro in plan.micro_batches for i in micro)

    # Then taking turns back and forth leaves no rank with all the longer ones
    assert abs(share(0) - share(1)) <= 1


@pytest.mark.parametrize(
    ("processes", "strategy"),
    [
        pytest.param(2, (), id="ddp"),
        pytest.param(2, ("chunked",), id="ddp, logits in parts", marks=pytest.mark.slow),
        pytest.param(2, ("fsdp",), id="fsdp", marks=pytest.mark.slow),
        pytest.param(2, ("fsdp", "chunked"), id="fsdp, logits in parts", marks=pytest.mark.slow),
        pytest.param(2, ("split",), id="split layers", marks=pytest.mark.slow),
        pytest.param(4, ("split",), id="split layers, spread", marks=pytest.mark.slow),
    ],
)
def test_several_processes_take_the_same_steps_as_one(
    tmp_path: Path, processes: int, strategy: tuple[str, ...]
) -> None:
    # Given one run of three steps, and the same run shared by gloo processes, which hold all of the model or a part
    script = SUPPORT / "train_on_ranks.py"
    for devices, words in ((1, ()), (processes, strategy)):
        done = warm_processes.run([script, str(devices), tmp_path / f"{devices}.pt", *words])
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, processes))

    # Then losses, weights and the score of 37 rows agree
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-6)
    assert one["penalties"] == pytest.approx(two["penalties"], rel=1e-6) and one["penalties"][0] > one["penalties"][-1]
    assert one["counted"] == two["counted"] == 37
    assert one["val"] == pytest.approx(two["val"], rel=1e-6)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limit", [0.1, 4.9999, 5.0, 5.000001, 5.1, float("inf")])
@pytest.mark.parametrize("largest", [4.0, float("inf"), float("nan")])
def test_clipping_is_that_of_torch_below_at_and_above_the_limit(limit: float, largest: float) -> None:
    ours, theirs = ([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))] for _ in range(2))
    for parameters in (ours, theirs):
        parameters[0].grad, parameters[1].grad = torch.tensor([0.0, 3.0]), torch.tensor([largest])
    norm, right = clip_gradients(ours, limit), nn.utils.clip_grad_norm_(theirs, limit)
    torch.testing.assert_close(norm, right, rtol=0, atol=0, equal_nan=True)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=0, equal_nan=True)
