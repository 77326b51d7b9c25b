"""Gradients and scores of models that two processes share, logits a part at a time, beside those of one process with
all logits at once.  Started by tests: RANK FOLDER; process 0 prints a line of JSON, the largest differences by case.
"""

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.micro_batches import instruction, micro
from support.tiny_models import decoder
from tunelab.config.schema import FsdpConfig
from tunelab.data.examples import IGNORE, Batch, Example, MicroBatch
from tunelab.models import chunked_logits
from tunelab.models.pretrained_layers import checkpoint_activations
from tunelab.models.sharding import gather_full, reshard, shard_model
from tunelab.tasks.causal import CausalTask
from tunelab.tasks.preference import Preference
from tunelab.training.evaluate import evaluate_task
from tunelab.training.module import FineTuner

warnings.filterwarnings("ignore")
LENGTHS = ((9, 4, 7, 2), (30,), (5, 3), (12, 12))  # of four micro-batches, two on each process


def low_rank(model: PreTrainedModel, *names: str) -> PreTrainedModel:
    """The model with low-rank layers, everything else frozen."""
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    return inject_adapter_in_model(LoraConfig(r=4, target_modules=list(names), init_lora_weights=False), model)  # type: ignore[return-value]


def checkpointed(model: PreTrainedModel) -> PreTrainedModel:
    """The model, whose layers are computed once more in the backward pass."""
    checkpoint_activations(model)
    return model


def biased() -> PreTrainedModel:
    """A model whose head has a bias."""
    model = decoder("llama")
    model.lm_head = nn.Linear(32, 300)
    return model


def pairs(lengths: tuple[int, ...]) -> MicroBatch:
    """Pairs of a better and a worse answer."""
    draw = torch.Generator().manual_seed(len(lengths))
    rows = []
    for row, length in enumerate(lengths):
        ids, more = (torch.randint(3, 250, (size + 2,), generator=draw).tolist() for size in (length, 3))
        labels = [IGNORE, IGNORE, *ids[2:], IGNORE, IGNORE, *more[2:]]
        rows.append(Example([*ids, *more], labels, 1, row, second_start=len(ids), reference_logprobs=(-9.0, -8.0)))
    return Preference().collate(rows)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (lambda: decoder("llama"), {}),
    "tied": (lambda: decoder("llama", tie_word_embeddings=True), {}),
    "gpt2": (lambda: decoder("gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), {}),
    "gemma2": (lambda: decoder("gemma2"), {}),
    "bias": (biased, {}),
    "frozen head": (lambda: low_rank(decoder("llama"), "q_proj"), {}),
    "low-rank head": (lambda: low_rank(decoder("llama"), "q_proj", "lm_head"), {}),
    "checkpointed": (lambda: checkpointed(decoder("llama")), {}),
    "kept": (lambda: decoder("llama"), {"reshard_after_forward": False}),
    "offloaded": (lambda: decoder("llama", tie_word_embeddings=True), {"cpu_offload": True}),
    "half": (lambda: decoder("llama"), {"gather_dtype": "bfloat16"}),
    "one process alone": (lambda: decoder("llama"), {"chunked": "auto"}),  # the others' rows are few
    "preferences": (lambda: decoder("llama"), {"task": "preference"}),
}


def step_gradient(model: PreTrainedModel, task: CausalTask, micros: list[MicroBatch], world: int) -> dict[str, Tensor]:
    """The gradient of a step that processes share, whole."""

    def sum_up(value: Tensor, **_: Any) -> Tensor:
        if world > 1:
            distributed.all_reduce(value)
        return value

    module = FineTuner(model, task, optimizer=lambda p: torch.optim.SGD(p, 0.1), schedule=lambda step: 1.0, clip=0)
    strategy = SimpleNamespace(reduce=sum_up)
    module._trainer = SimpleNamespace(strategy=strategy, world_size=world, global_step=0, global_rank=0)  # type: ignore[assignment]
    module._fabric = None
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    module._compute_gradient(Batch(micros, 40.0))
    return {name: gather_full(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def mean_loss(model: PreTrainedModel, task: CausalTask, micros: list[MicroBatch]) -> float:
    """The loss of an evaluation."""
    scores = task.scores()
    with torch.no_grad():
        evaluate_task(micros, task, model.eval(), scores)
    reshard(model)
    return scores.compute()["loss"]


def differences(name: str, rank: int, mesh: Any) -> tuple[float, float]:
    """The largest difference of gradients, as a share of the largest one, and that of the loss of an evaluation."""
    build, options = CASES[name]
    options = dict(options)
    is_pairs, chunked = options.pop("task", None) == "preference", options.pop("chunked", True)
    micros = [pairs(lengths) if is_pairs else micro(lengths=lengths) for lengths in LENGTHS]
    task: CausalTask = Preference() if is_pairs else instruction()
    whole = build()
    task.chunked_loss = False
    right, right_loss = step_gradient(whole, task, micros, 1), mean_loss(whole, task, micros)
    model = build()
    shard_model(model, mesh, FsdpConfig(**options))
    task.chunked_loss = chunked
    assert chunked == "auto" or task.takes_parts(model, micros[0])
    for _ in range(2):  # a second step must not see what the first has left
        model.train()
        model.zero_grad()
        ours = step_gradient(model, task, micros[rank::2], 2)
        loss = mean_loss(model, task, micros)
    assert ours.keys() == right.keys(), ours.keys() ^ right.keys()
    largest = max(float(gradient.abs().max()) for gradient in right.values())
    off = max(float((ours[key] - gradient).abs().max()) for key, gradient in right.items())
    return off / largest, abs(loss / right_loss - 1)


def main(rank: int, folder: Path) -> None:
    """Compare all cases."""
    chunked_logits.LOGITS_BUDGET, chunked_logits.LEAST_ROWS = 2 * 4 * 300 * 9, 3
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    results = {name: differences(name, rank, mesh) for name in CASES}
    if rank == 0:
        print(json.dumps(results))
    distributed.barrier()  # one that leaves would break the last exchange of the other
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
