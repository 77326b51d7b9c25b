"""The parts of a step: its rate, its divisor, its weights, and which rows may take part."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import AutoTokenizer

from support.tiny_runs import MODEL, QUIET, instructions, settings, write
from tunelab.config.resource_paths import resolve_path
from tunelab.errors import ConfigError, DataError
from tunelab.models.load_model import load_model
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import build_components, build_model, build_task
from tunelab.training.run import fine_tune

SMALL = [*MODEL, *QUIET, "test=false", "save=false", "data.split.validation=0.1", "data.split.test=0"]


class Watch(Callback):
    """Keeps what each step was divided by, and what it learned."""

    def __init__(self) -> None:
        self.units: list[float] = []
        self.targets: list[int] = []
        self.rows: list[list[int]] = []
        self.micros: list[int] = []
        self.norms: list[tuple[float, float]] = []  # of the gradient: as wanted, and as the step had it
        self.kinds: set[torch.dtype] = set()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        task, model = pl_module.task, pl_module.model
        total = sum(task.loss_sum(task.logits(model, micro), micro) for micro in batch.micro_batches)
        learned = sum(int((micro.targets != -100).sum()) for micro in batch.micro_batches)
        gradients = torch.autograd.grad(total / learned, list(model.parameters()))
        self.wanted = float(torch.stack([gradient.norm() for gradient in gradients]).norm())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.norms.append((self.wanted, pl_module.step_norm))
        self.units.append(batch.loss_weight)
        self.targets.append(sum(int((micro.targets != -100).sum()) for micro in batch.micro_batches))
        self.micros.append(len(batch.micro_batches))
        self.rows.append([row for micro in batch.micro_batches for row in micro.row_indices.tolist()])
        self.kinds |= {p.dtype for p in pl_module.parameters()}


def ran(tmp_path: Path, *more: str, rows: int = 24) -> tuple[Watch, RunDirectory]:
    watch, folder = Watch(), tmp_path / "-".join(("run", *more)).replace("/", "_").replace("=", "_")
    given = ["data=instruction", f"data.train={instructions(tmp_path, rows)}", *SMALL, *more]
    fine_tune(settings(*given, "trainer.log_every_n_steps=1"), folder, callbacks=[watch])
    return watch, RunDirectory(folder)


def rates(folder: RunDirectory) -> list[float]:
    return [row["train/lr"] for row in folder.read_curves() if "train/lr" in row]


def test_the_rate_changes_once_per_optimizer_step_and_ends_at_the_end_however_steps_are_cut(tmp_path: Path) -> None:
    # Given three passes that end in a smaller step, each step cut into one or into many micro-batches
    given = [
        "batch_size=6",
        "max_epochs=3",
        "lr=0.1",
        "scheduler=linear",
        "scheduler.warmup=2",
        "scheduler.min_lr_ratio=0.1",
    ]
    one, whole = ran(tmp_path, *given, "micro_tokens=4096")
    many, parts = ran(tmp_path, *given, "micro_tokens=40")

    # Then there are as many rates as steps, the same ones, from half the peak down to one step above the floor
    total = len(one.units)
    assert 0 < len(one.rows[-1]) < 6
    fall = (1 - 0.1) / (total - 2)
    wanted = [0.05, 0.1] + [0.1 * (1 - fall * step) for step in range(total - 2)]
    assert rates(whole) == rates(parts) == pytest.approx(wanted)
    assert sum(one.micros) < sum(many.micros) and [sorted(rows) for rows in one.rows] == [
        sorted(rows) for rows in many.rows
    ]


def test_the_last_incomplete_step_is_divided_by_its_own_tokens(tmp_path: Path) -> None:
    # Given an epoch that ends with fewer rows than a step has
    watch, _ = ran(tmp_path, "batch_size=8", "max_epochs=1", "micro_tokens=40")

    assert 0 < len(watch.rows[-1]) < 8 and watch.micros[-1] > 1
    assert watch.units == watch.targets
    assert [found for _, found in watch.norms] == pytest.approx([wanted for wanted, _ in watch.norms], rel=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_small_rate_still_moves_every_weight(precision: str, tmp_path: Path) -> None:
    # Given a rate whose steps bfloat16 weights would round away
    given = ["lr=1e-6", "scheduler=constant", "scheduler.warmup=0", "max_steps=1", "batch_size=20"]
    run = settings("data=instruction", f"data.train={instructions(tmp_path)}", *SMALL)
    task = build_task(run)
    before = build_model(run, task, AutoTokenizer.from_pretrained(resolve_path("package:tunelab.starter/model")))
    watch, folder = ran(tmp_path, *given, f"trainer.precision={precision}", "regularization=none")

    # Then weights and their changes are kept in 32 bit, and the matrices of the body have all moved
    from tunelab.runs.checkpoint import read_checkpoint

    after = read_checkpoint(folder.last)["state_dict"]
    moved = total = 0
    network = before if isinstance(before, torch.nn.Module) else before.model
    for name, weight in network.state_dict().items():
        if "layers" in name and weight.ndim == 2:
            moved += int((after[f"model.{name}"] != weight).sum())
            total += weight.numel()
    assert watch.kinds == {torch.float32}
    assert moved > 0.99 * total > 0


@pytest.mark.parametrize("too_long", ["drop", "truncate_prompt", "truncate_answer"])
def test_rows_that_a_limit_leaves_without_an_answer_are_counted_and_never_trained_on(
    too_long: str, tmp_path: Path
) -> None:
    # Given prompts beyond the limit, answers beyond it, answers marked as not learned, and rows that fit
    turn = {"role": "user", "content": "say red"}
    kinds = [
        [{"role": "user", "content": "red " * 90}, {"role": "assistant", "content": "red"}],
        [turn, {"role": "assistant", "content": "blue " * 90}],
        [turn, {"role": "assistant", "content": "blue", "train": False}],
        [turn, {"role": "assistant", "content": "red"}],
    ]
    data = write(tmp_path / "long.jsonl", [{"messages": kinds[i % 4]} for i in range(40)])
    given = [
        "data=instruction", f"data.train={data}", f"data.too_long={too_long}", "data.max_tokens=48", *SMALL,
        "data.split.validation=0", "batch_size=8", "max_epochs=1",
    ]  # fmt: skip
    watch = Watch()
    fine_tune(settings(*given), tmp_path / "run", callbacks=[watch])

    counts = RunDirectory(tmp_path / "run").read_data_report()["splits"]["train"]
    dropped, truncated = {"drop": (30, 0), "truncate_prompt": (20, 10), "truncate_answer": (20, 10)}[too_long]
    assert (counts["rows"], counts["dropped"], counts["truncated"]) == (40, dropped, truncated)
    trained = {"drop": {3}, "truncate_prompt": {0, 3}, "truncate_answer": {1, 3}}[too_long]
    assert sum(map(len, watch.rows)) == 40 - dropped and {row % 4 for rows in watch.rows for row in rows} == trained
    assert all(units > 0 for units in watch.units) and sum(watch.units) == counts["supervised"]


def test_a_file_of_rows_that_teach_nothing_is_refused_and_not_trained_on(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": False}]
    data = write(tmp_path / "nothing.jsonl", [{"messages": turns}] * 12)

    with pytest.raises(DataError, match="none of .* rows is left.*nothing to learn"):
        build_components(settings("data=instruction", f"data.train={data}", *SMALL, "data.split.validation=0"))


def test_a_tokenizer_with_more_words_than_the_model_never_reaches_beyond_the_embeddings() -> None:
    # Given a tokenizer that was given tokens, padding among them, that the model on disk has no row for
    tokenizer = AutoTokenizer.from_pretrained(resolve_path("package:tunelab.starter/model"))
    known = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<|padding|>", "extra_special_tokens": ["<|new|>"]})

    model = load_model(settings().model, tokenizer, head="causal", options={})

    rows = model.get_input_embeddings().weight.shape[0]
    assert len(tokenizer) == known + 2 and tokenizer.pad_token_id < rows and rows >= len(tokenizer)
    logits = model(input_ids=torch.tensor([[tokenizer.pad_token_id, len(tokenizer) - 1]])).logits
    assert logits.isfinite().all() and logits.shape[-1] == rows == model.config.vocab_size


def test_the_seed_alone_fixes_the_first_weights_whatever_was_drawn_before(tmp_path: Path) -> None:
    def first(seed: int, disturb: int) -> dict[str, torch.Tensor]:
        run = settings("data=instruction", f"data.train={instructions(tmp_path)}", *SMALL, f"seed={seed}")
        torch.manual_seed(disturb)
        torch.rand(disturb)
        found = build_components(run).model.state_dict()
        return {name: weight.clone() for name, weight in found.items()}

    one, same, other = first(0, 5), first(0, 77), first(1, 5)

    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_a_score_that_will_not_be_logged_is_refused_before_training(tmp_path: Path) -> None:
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", *SMALL, "monitor=val/acuracy"]

    with pytest.raises(ConfigError, match="monitor=val/acuracy.*val/loss"):
        fine_tune(settings(*given), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
