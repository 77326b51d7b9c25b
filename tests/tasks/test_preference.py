"""Preference tuning: pairs as examples, the reference, and a gradient that no layout changes."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from support.preference_examples import encoded, moved, pairs, ready, starter_model
from tunelab.data.examples import IGNORE, Batch
from tunelab.data.loader import BatchLoader
from tunelab.errors import ConfigError, DataError
from tunelab.models.adapters import adapter_disabled
from tunelab.models.packing_support import supports_packing
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL
from tunelab.tasks.preference import Preference
from tunelab.training.module import FineTuner

ROWS = 7
LONG = {"prompt": "Say " + "red " * 40, "chosen": "red red", "rejected": "blue blue blue"}


def loader(task: Preference, examples: list, *, micro_tokens: int, rank: int = 0, world: int = 1) -> BatchLoader:
    return BatchLoader(
        examples, collate=task.collate, filler=task.padding_example(), batch_size=len(examples),
        micro_tokens=micro_tokens, packed=task.packed, seed=3, rank=rank, world_size=world,
    )  # fmt: skip


def gradient(task: Preference, model, step: Batch, world: int = 1) -> dict[str, Tensor]:
    """The module's gradient of one step on one rank."""
    model.zero_grad()
    module = FineTuner(model, task, optimizer=lambda p: torch.optim.SGD(p, 0.1), schedule=lambda step: 1.0, clip=0)
    module._trainer = SimpleNamespace(
        strategy=SimpleNamespace(reduce=lambda value, **_: value), world_size=world, global_step=0, global_rank=0
    )
    module._fabric = None
    module.manual_backward = lambda loss: loss.backward()
    module._compute_gradient(step)
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def plain_gradient(task: Preference, model, reference, examples: list) -> dict[str, Tensor]:
    """Every answer by itself through transformers, written from the paper."""
    model.zero_grad()

    def log_probability(network, ids: list[int], labels: list[int]) -> Tensor:
        logits = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].log_softmax(-1)
        wanted = torch.tensor(labels[1:])
        return logits[wanted != IGNORE, wanted[wanted != IGNORE]].sum()

    for example in examples:
        ratio = []
        for part in (slice(example.second_start), slice(example.second_start, None)):
            side = example.ids[part], example.target[part]
            with torch.no_grad():
                before = log_probability(reference, *side)
            ratio.append(log_probability(model, *side) - before)
        (-torch.sigmoid(0.1 * (ratio[0] - ratio[1])).log() / len(examples)).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_the_gradient_is_that_of_the_paper_however_a_step_is_cut_or_shared(packed: bool) -> None:
    # Given a model that has left its reference, and uneven pairs
    reference = starter_model()
    model = moved(copy.deepcopy(reference))
    task = ready()
    examples = task.add_reference(reference, encoded(task, ROWS), 10**6)
    wanted = plain_gradient(task, model, reference, examples)
    if packed:
        assert supports_packing(model, DOCUMENT_KERNEL)
        task.packed = True

    # When a step is one micro-batch, or one for each pair, or shared by more ranks than there are pairs
    found = [gradient(task, model, next(iter(loader(task, examples, micro_tokens=n)))) for n in (10**6, 150, 1)]
    world = ROWS + 1
    shares = [next(iter(loader(task, examples, micro_tokens=99, rank=rank, world=world))) for rank in range(world)]
    assert any(micro.row_indices.tolist() == [-1] for share in shares for micro in share.micro_batches)
    parts = [gradient(task, model, share, world) for share in shares]
    found.append({name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]})

    # Then the gradient is always the mean over pairs
    for one in found:
        for name, its in wanted.items():
            torch.testing.assert_close(one[name], its, rtol=1e-3, atol=1e-5)


def test_no_pass_of_padded_pairs_holds_more_tokens_than_allowed() -> None:
    # Given pairs whose sides differ in length, so that rows are padded to the longer
    task = ready()
    examples = encoded(task, 30)
    assert any(2 * example.max_sequence_length > len(example.ids) for example in examples)

    step = next(iter(loader(task, examples, micro_tokens=400)))

    assert len(step.micro_batches) > 2
    assert max(micro.ids.numel() for micro in step.micro_batches) <= 400


def test_the_reference_is_the_same_in_any_layout_and_every_answer_has_its_own() -> None:
    model, task = starter_model(), ready()
    examples = encoded(task, ROWS)
    padded = task.add_reference(model, examples, 10**6)
    alone = task.add_reference(model, examples, 1)
    assert supports_packing(model, DOCUMENT_KERNEL)
    task.packed = True
    packed = task.add_reference(model, examples, 300)

    for one, other, third in zip(padded, alone, packed, strict=True):
        assert one.reference_logprobs == pytest.approx(other.reference_logprobs, abs=1e-4)
        assert one.reference_logprobs == pytest.approx(third.reference_logprobs, abs=1e-4)
    assert len({value for example in padded for value in example.reference_logprobs}) == 2 * ROWS


def test_before_training_every_reward_is_zero_and_the_loss_is_that_of_a_coin() -> None:
    model, task = starter_model(), ready()
    micro = task.collate(task.add_reference(model, encoded(task, ROWS), 10**6))
    scores = task.scores()

    scores.update(task.logits(model, micro), micro)

    found = scores.compute()
    assert found["loss"] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-5)
    assert found["reward_margin"] == pytest.approx(0, abs=1e-5)


def test_scores_are_means_over_pairs_and_know_no_filler() -> None:
    # Given two pairs, one of them on the wrong side, and a filler
    task = ready(beta=0.5)
    examples = [replace(e, reference_logprobs=(-1.0, -2.0)) for e in encoded(task, 2)]
    scores = task.scores()
    for part in ([examples[0], task.padding_example()], [examples[1]]):
        micro = task.collate(part)
        logits = torch.tensor([[3.0, -2.0]] + [[9.0, 1.0]] * (len(part) - 1)) if len(part) > 1 else None
        scores.update(torch.tensor([[-1.0, 0.0]]) if logits is None else logits, micro)

    found = scores.compute()

    assert set(found) == set(task.score_names)
    assert found["reward_accuracy"] == 0.5
    assert found["chosen_reward"] == pytest.approx(0.5 * (4 + 0) / 2)
    assert found["rejected_reward"] == pytest.approx(0.5 * (0 + 2) / 2)
    assert found["reward_margin"] == pytest.approx(0.5 * (4 - 2) / 2)
    losses = [-torch.nn.functional.logsigmoid(torch.tensor(0.5 * margin)).item() for margin in (4, -2)]
    assert found["loss"] == pytest.approx(sum(losses) / 2)


def test_predictions_are_the_rewards_of_each_pair() -> None:
    task = ready()
    examples = [replace(example, reference_logprobs=(-1.0, -2.0)) for example in encoded(task, 2)]
    micro = task.collate([*examples, task.padding_example()])

    found = task.predictions(None, micro, torch.tensor([[3.0, -2.0], [-1.0, 0.0], [5.0, 5.0]]), pairs("train", 2))

    assert [row["row"] for row in found] == [0, 1]
    assert found[0]["chosen_reward"] == pytest.approx(0.4)
    assert found[1]["margin"] == pytest.approx(-0.2)


def test_pairs_without_a_reference_are_never_scored_against_nothing() -> None:
    task = ready()
    micro = task.collate(encoded(task, 2))

    with pytest.raises(RuntimeError, match="no reference"):
        task.loss_sum(torch.zeros(2, 2), micro)


def test_a_pair_without_a_difference_is_refused() -> None:
    with pytest.raises(DataError, match="a pair without a difference teaches nothing"):
        ready().encode({"prompt": "Say red", "chosen": "red", "rejected": "red"}, 0)


def sides(task: Preference, record: dict) -> tuple[list[int], list[int]] | None:
    example = task.encode(record, 0)
    return None if example is None else (example.ids[: example.second_start], example.ids[example.second_start :])


def test_a_pair_that_does_not_fit_is_dropped_whole() -> None:
    # Given a limit that the shorter answer would keep
    whole = sides(ready(), LONG)
    assert len(whole[0]) < len(whole[1])

    assert sides(ready(limit=len(whole[0])), LONG) is None
    assert sides(ready(limit=len(whole[1])), LONG) == whole


def test_a_cut_prompt_stays_the_same_for_both_answers() -> None:
    task = ready()
    chosen, rejected = sides(task, LONG)
    tight = ready(limit=len(rejected) - 20, too_long="truncate_prompt")

    short_chosen, short_rejected = sides(tight, LONG)

    # Then both lost the same 20 tokens, the begin token and the answers stayed
    bos = int(chosen[0] == task.tokenizer.bos_token_id)
    assert short_chosen == chosen[:bos] + chosen[bos + 20 :]
    assert short_rejected == rejected[:bos] + rejected[bos + 20 :]
    assert tight.truncated_count == 1


def test_answers_cut_until_they_no_longer_differ_are_dropped() -> None:
    record = {"prompt": "Say colours", "chosen": "red " * 30 + "blue", "rejected": "red " * 30 + "green"}
    chosen, _ = sides(ready(), record)

    assert sides(ready(limit=len(chosen) // 2, too_long="truncate_answer"), record) is None


def test_an_adapter_that_has_learned_is_off_for_the_reference_and_on_again_after() -> None:
    # Given a model whose adapter says something else, one of its matrices frozen
    model, task = starter_model(), ready()
    micro = task.collate(encoded(task, 2))
    base = task.logits(model, micro)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    learned = task.logits(model, micro)
    assert not torch.allclose(base, learned)
    frozen = next(weight for name, weight in model.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(False)
    learns = [weight.requires_grad for weight in model.parameters()]

    with adapter_disabled(model):
        torch.testing.assert_close(task.logits(model, micro), base)

    torch.testing.assert_close(task.logits(model, micro), learned)
    assert [weight.requires_grad for weight in model.parameters()] == learns


def test_smoothing_of_a_loss_that_has_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="label_smoothing"):
        ready(loss="ipo", label_smoothing=0.1)


def test_a_filler_adds_nothing_to_the_loss_and_keeps_the_graph() -> None:
    model, task = starter_model(), ready()
    micro = task.collate([task.padding_example()])

    loss = task.loss_sum(task.logits(model, micro), micro)

    assert float(loss) == 0
    loss.backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())
