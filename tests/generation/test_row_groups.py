"""Groups of rows: which row goes where, and what attention reads."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tunelab.ensemble.model_mixture import MixtureModel
from tunelab.generation.row_groups import (
    GROUPED_KERNEL,
    RowGroup,
    close_ranks,
    grouped_attention,
    grouped_kernel,
    merge_groups,
    use_groups,
)


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_stay_keep_their_group_and_few_of_them_move(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 7, (4,), generator=draw).tolist()
    group_of = [group for group, size in enumerate(sizes) for _ in range(size)]
    done = {row for row in range(sum(sizes)) if torch.rand((), generator=draw) < 0.3}

    order, kept = close_ranks(sizes, done)

    assert sorted(order) == [row for row in range(sum(sizes)) if row not in done]
    assert [group_of[row] for row in order] == sorted(group_of[row] for row in order)
    assert kept == [size for size in torch.bincount(torch.tensor([group_of[row] for row in order])).tolist() if size]
    assert sum(place != row for place, row in enumerate(order)) <= len(sizes) * len(done)


def test_neighbours_are_joined_where_a_call_costs_more_than_their_pads() -> None:
    sizes, lengths = [2, 3, 40], [100, 90, 80, 70, 75, *[20] * 40]

    # 3 rows read 20 pads more each, and 40 rows would read 80
    assert merge_groups(sizes, lengths) == [RowGroup(5, 100), RowGroup(40, 20)]


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 6])
def test_attention_by_groups_is_attention_to_the_whole(key_heads: int, window: int | None) -> None:
    # Given rows of many lengths at the right, and a sliding layer that holds the last tokens alone
    torch.manual_seed(0)
    lengths, width = [12, 11, 7, 5, 5, 2], 12
    held = width if window is None else window
    module = nn.Module()
    module.num_key_value_groups = 4 // key_heads
    query = torch.randn(6, 4, 1, 8)
    key, value = torch.randn(2, 6, key_heads, held, 8)
    places = torch.arange(width - held, width)
    mask = torch.stack([places >= width - length for length in lengths])[:, None, None]  # (B, 1, 1, T)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask)

    with use_groups([RowGroup(2, 12), RowGroup(1, 7), RowGroup(2, 5), RowGroup(1, 2)]):
        mixed, _ = grouped_attention(module, query, key, value, mask)

    torch.testing.assert_close(mixed, expected)


def test_a_mixture_reads_groups_only_where_every_member_can() -> None:
    def member(kind: str) -> Any:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = AutoConfig.for_model("llama", vocab_size=40, **sizes)
        return AutoModelForCausalLM.from_config(config, attn_implementation=kind)

    for kinds in (["sdpa", "sdpa"], ["sdpa", "eager"], ["eager", "sdpa"]):
        mixture: Any = MixtureModel([member(kind) for kind in kinds], [0.5, 0.5])
        with grouped_kernel(mixture):
            inside = [model.config._attn_implementation for model in mixture.models]
        assert inside == ([GROUPED_KERNEL] * 2 if kinds == ["sdpa", "sdpa"] else kinds)
        assert [model.config._attn_implementation for model in mixture.models] == kinds
