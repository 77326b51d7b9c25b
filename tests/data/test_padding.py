"""Padded rows: a pass more where pads would cost more, and the same gradient either way."""

from pathlib import Path

import torch

from support.tiny_runs import MODEL, QUIET, settings, write
from tunelab.data.batching import split_micro_batches
from tunelab.training.components import build_components, build_datamodule


def test_a_short_row_opens_a_pass_of_its_own_where_pads_would_cost_more() -> None:
    lengths = [40, 38, 37, 12, 11, 10, 9, 8]
    rows = range(len(lengths))

    assert split_micro_batches(rows, lengths, micro_tokens=4096, packed=False) == [list(rows)]
    assert split_micro_batches(rows, lengths, micro_tokens=4096, packed=False, pass_cost=30) == [
        [0, 1, 2],
        [3, 4, 5, 6, 7],
    ]
    assert split_micro_batches(rows, lengths, micro_tokens=4096, packed=False, pass_cost=0) == [[row] for row in rows]
    assert split_micro_batches(rows, lengths, micro_tokens=50, packed=False, pass_cost=30)[-1] == [
        7
    ]  # the limit holds as before


def test_a_run_on_a_processor_has_few_pads_and_the_same_gradient(tmp_path: Path) -> None:
    words = ["data=classification", "data.text=text", "data.label=label", "batch_size=32", "data.packing=false"]
    rows = [{"text": " ".join(["red"] * (40 if i % 8 == 0 else 4)) + f" {i}", "label": i % 2} for i in range(64)]
    prepared = build_components(
        settings(*words, f"data.train={write(tmp_path / 'uneven.jsonl', rows)}", *MODEL, *QUIET)
    )
    loader, gradients, pads = build_datamodule(prepared).loader("train"), [], []
    model = prepared.model.eval()  # no dropout: passes of another shape would draw another mask
    for cost in (loader.pass_cost, None):
        loader.pass_cost = cost
        step = next(iter(loader))
        model.zero_grad()
        for micro in step.micro_batches:
            (prepared.task.loss_sum(prepared.task.logits(model, micro), micro) / step.loss_weight).backward()
        gradients.append({n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None})
        pads.append(sum(micro.ids.numel() - int(micro.lengths.sum()) for micro in step.micro_batches))

    assert pads[0] < 0.2 * pads[1]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=1e-6)
