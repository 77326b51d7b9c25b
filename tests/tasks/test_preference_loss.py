"""The loss on pairs, against closed forms."""

from math import exp, log

import pytest
import torch

from tunelab.data.batching import pack_examples, pad_examples
from tunelab.data.examples import IGNORE, Example
from tunelab.tasks.preference_loss import PreferenceLoss, answer_lengths, answer_log_probabilities

RATIOS = torch.tensor([[2.0, -1.0], [0.0, 0.0], [-0.5, 3.0]])
TOKENS = torch.tensor([[2, 4], [1, 1], [5, 3]])


def test_dpo_is_the_negative_log_of_the_chance_that_the_chosen_wins() -> None:
    found = PreferenceLoss("sigmoid", beta=0.3).losses(RATIOS, TOKENS)

    wanted = [-log(1 / (1 + exp(-0.3 * (chosen - rejected)))) for chosen, rejected in RATIOS.tolist()]
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)
    assert float(found[1]) == pytest.approx(log(2))


def test_smoothing_mixes_in_the_loss_of_the_pair_turned_round() -> None:
    plain, turned = PreferenceLoss("sigmoid", 0.3), RATIOS.flip(1)

    found = PreferenceLoss("sigmoid", 0.3, label_smoothing=0.2).losses(RATIOS, TOKENS)

    wanted = 0.8 * plain.losses(RATIOS, TOKENS) + 0.2 * plain.losses(turned, TOKENS)
    torch.testing.assert_close(found, wanted)


def test_ipo_pulls_the_gap_per_token_to_one_over_twice_beta() -> None:
    found = PreferenceLoss("ipo", beta=0.5).losses(RATIOS, TOKENS)

    wanted = [(c / n - r / m - 1) ** 2 for (c, r), (n, m) in zip(RATIOS.tolist(), TOKENS.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)
    at_target = torch.tensor([[1.0, 0.0]])
    assert float(PreferenceLoss("ipo", 0.5).losses(at_target, torch.tensor([[1, 1]]))) == 0


def test_a_very_wrong_pair_has_a_finite_loss() -> None:
    assert PreferenceLoss("sigmoid", 1.0).losses(torch.tensor([[-1e4, 1e4]]), TOKENS[:1]).isfinite().all()


@pytest.mark.parametrize("lay", [pack_examples, lambda rows: pad_examples(rows, pad=0)], ids=["packed", "padded"])
def test_log_probabilities_add_up_over_the_tokens_of_each_answer(lay) -> None:
    # Given two pairs of uneven length, one answer of a single token
    sides = [
        Example([1, 2, 3, 4], [IGNORE, IGNORE, 3, 4], 1, 0),
        Example([1, 2, 5], [IGNORE, IGNORE, 5], 1, 0),
        Example([6, 7], [IGNORE, 7], 1, 1),
        Example([6, 8, 9, 1, 2], [IGNORE, 8, 9, 1, 2], 1, 1),
    ]
    micro = lay(sides)
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))

    # When they are read off the logits of all supervised positions
    found = answer_log_probabilities(logits, micro)

    # Then each answer has the sum over its own
    each = logits.log_softmax(-1)[torch.arange(8), torch.tensor([3, 4, 5, 7, 8, 9, 1, 2])]
    wanted = torch.stack([each[:2].sum(), each[2], each[3], each[4:].sum()]).view(2, 2)
    torch.testing.assert_close(found, wanted)
    assert answer_lengths(micro).tolist() == [[2, 1], [1, 4]]
