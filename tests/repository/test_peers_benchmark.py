"""The benchmark of the peers compares equal work, and says so where a promised ratio is missed."""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from support.paths import ROOT

HERE = ROOT / "bench" / "peers"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The scripts of the folder, which import each other by their bare names."""
    sys.path.insert(0, str(HERE))
    names = ("loops", "hand_written", "run")
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(HERE))
    for name in names:
        del sys.modules[name]


def test_the_hand_written_limit_and_the_plain_loop_have_the_same_loss_and_gradient(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=24, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    limit = scripts["hand_written"].Llama(tmp_path, 32)
    batch = [(list(range(4, 4 + length)), prompt) for length, prompt in ((9, 4), (3, 1), (17, 8))]

    plain = model(**scripts["loops"].pad_causal(batch)).loss
    by_hand = limit.loss(batch)
    plain.backward()
    by_hand.backward()

    torch.testing.assert_close(by_hand, plain, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(limit.head.grad, model.lm_head.weight.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        limit.blocks[0].down.grad, model.model.layers[0].mlp.down_proj.weight.grad, atol=1e-6, rtol=1e-5
    )


def rows(**throughput: list[float]) -> list[dict[str, Any]]:
    """Runs of a workload, one list of rounds for each peer."""
    return [
        {"workload": "labels", "peer": peer, "round": number, "tokens_per_cpu_s": value}
        for peer, values in throughput.items()
        for number, value in enumerate(values)
    ]


def test_ratios_are_taken_round_by_round(scripts: dict[str, ModuleType]) -> None:
    runs = rows(tunelab=[300.0, 100.0, 50.0], labels_trainer=[100.0, 50.0])

    assert scripts["run"].ratios(runs, "labels", "labels_trainer") == [3.0, 2.0]


@pytest.mark.parametrize(
    ("ours", "peers", "expected"), [([300.0], [100.0], None), ([150.0], [100.0], "1.50"), ([], [100.0], "a run failed")]
)
def test_a_missed_ratio_and_a_failed_run_are_said(
    ours: list[float], peers: list[float], expected: str | None, scripts: dict[str, ModuleType]
) -> None:
    missed = scripts["run"].missed_guards(rows(tunelab=ours, labels_trainer=peers), ["labels"])

    assert (missed == []) if expected is None else (expected in missed[0])


def test_the_peers_train_the_batches_of_the_file_in_order(scripts: dict[str, ModuleType]) -> None:
    arguments = argparse.Namespace(steps=3, batch=2)

    assert list(scripts["loops"].batches(list("abcde"), arguments)) == [["a", "b"], ["c", "d"], ["b", "c"]]
