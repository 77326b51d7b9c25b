"""What `cpu`, `ddp_cpu` and `fsdp_cpu` take beside what is foretold: memory of a process, and seconds of a step.

    python bench/strategies/run.py                 # both tables, as docs/scale.md has them: some twelve minutes
    python bench/strategies/run.py --only memory   # or seconds

Two processes on the loopback address go through all cases, with one thread and one core each where there are two.
Memory is the most bytes of tensors at one time in three steps.  Seconds are medians over rounds in which the cases
take turns; what the arithmetic of a step costs is measured on one process while the other does the same.
"""

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))
SCRATCH = ("model=scratch", "model.context=256")
WORDS = [
    "data=instruction", "data.split.validation=0", "data.split.test=0", *SCRATCH,
    "logger=none", "trainer.enable_progress_bar=false", "callbacks.throughput=false", "callbacks.doctor=false",
    "adapter=full", "batch_size=32", "micro_tokens=2048",
]  # fmt: skip
LARGE = ["model.depth=6", "model.width=384", "model.heads=8", "batch_size=12", "micro_tokens=512"]
MEMORY_CASES = {  # name: what is set for it
    "cpu": [*LARGE, "trainer=cpu"],
    "ddp": [*LARGE, "trainer=ddp_cpu"],
    "fsdp": [*LARGE, "trainer=fsdp_cpu"],
    "fsdp, reshard_after_forward=false": [*LARGE, "trainer=fsdp_cpu", "trainer.fsdp.reshard_after_forward=false"],
    "fsdp, checkpointing": [*LARGE, "trainer=fsdp_cpu", "memory.activation_checkpointing=true"],
    "ddp, LoRA": [*LARGE, "trainer=ddp_cpu", "adapter=lora"],
    "fsdp, LoRA": [*LARGE, "trainer=fsdp_cpu", "adapter=lora"],
    "fsdp, large vocabulary, all logits": ["large vocabulary", "trainer=fsdp_cpu", "memory.chunked_loss=false"],
    "fsdp, large vocabulary, logits in parts": ["large vocabulary", "trainer=fsdp_cpu", "memory.chunked_loss=true"],
}
SMALL = ["model.depth=4", "model.width=64", "model.heads=4"]
STEP_CASES = {  # model and passes of a step on two devices
    "width 128, 1 pass": ["model.depth=4", "model.width=128", "model.heads=4", "batch_size=16", "micro_tokens=2048"],
    "width 256, 1 pass": ["model.depth=4", "model.width=256", "model.heads=4", "batch_size=16", "micro_tokens=2048"],
    "width 256, 8 passes": ["model.depth=4", "model.width=256", "model.heads=4", "batch_size=32", "micro_tokens=512"],
    "width 512, 1 pass": ["model.depth=4", "model.width=512", "model.heads=8", "batch_size=8", "micro_tokens=2048"],
    "width 512, 4 passes": ["model.depth=4", "model.width=512", "model.heads=8", "batch_size=8", "micro_tokens=256"],
}
STRATEGIES = ("cpu", "ddp_cpu", "fsdp_cpu")
UNIT_NUMBERS = (2**12, 2**16, 2**18, 2**20, 2**21)  # of the stand-ins of a unit: 16 KiB to 8 MiB
STEPS, SKIPPED = 6, 2  # of a run, and those of them that are not timed
LAPS = 7  # of a stand-in


def read_settings(words: list[str]) -> Any:
    """The settings of a command line."""
    from hydra import compose, initialize_config_dir

    from tunelab.config.validate import validate_config

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return validate_config(compose("config", overrides=words))


def train(words: list[str], folder: Path, callbacks: list[Any]) -> tuple[Any, Callable[[], None]]:
    """A model that is ready to train, its weights spread where that is the strategy, and the training."""
    from tunelab.training.components import build_components, build_datamodule, build_module
    from tunelab.training.sharded_strategy import share_model
    from tunelab.training.trainer import build_trainer

    components = build_components(read_settings(words))
    trainer = build_trainer(components.settings, folder, callbacks, [], checkpoints=False)
    share_model(trainer, components.model)
    module, data = build_module(components, components.model), build_datamodule(components)
    return components.model, lambda: trainer.fit(module, datamodule=data)


def resident(key: str = "VmRSS") -> int:
    """Bytes of this process in memory, or with `VmHWM` the most since `clear_refs`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def measure_memory(words: list[str], folder: Path) -> int:
    """The most bytes that this process takes in three steps, above what it had without model and data."""
    gc.collect()
    before = resident()
    _, work = train([*words, "max_steps=3"], folder, [])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the most so far: the model before it was spread
    work()
    return resident("VmHWM") - before


def foretell(words: list[str]) -> int:
    """Bytes that a process will take, by the forecast of `tunelab inspect`."""
    from tunelab.training.components import build_components
    from tunelab.training.run_inspection import forecast_strategies

    settings = read_settings(words)
    memory, costs = forecast_strategies(build_components(settings))
    if settings.trainer.devices == 1:
        return memory.peak
    kind = "fsdp" if settings.trainer.strategy == "fsdp" else "ddp"
    return next(cost.memory for cost in costs if (cost.strategy, cost.devices) == (kind, 2))


def measure_step(words: list[str], folder: Path) -> tuple[float, float, float]:
    """Median seconds of a step, those of the optimizer in it, and passes."""
    from lightning.pytorch.callbacks import Callback
    from torch import distributed

    steps, inside, passes = list[float](), list[float](), list[int]()

    class Clock(Callback):
        """Takes the time of each step; all begin it together."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            step = trainer.optimizers[0].step

            def timed(*args: Any, **kwargs: Any) -> Any:
                start = time.perf_counter()
                try:
                    return step(*args, **kwargs)
                finally:
                    inside.append(time.perf_counter() - start)

            trainer.optimizers[0].step = timed

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            passes.append(len(batch.micro_batches))
            distributed.barrier()
            self.start = time.perf_counter()

        def on_train_batch_end(self, *_: Any) -> None:
            steps.append(time.perf_counter() - self.start)

    train([*words, f"max_steps={STEPS}"], folder, [Clock()])[1]()
    return median(steps[SKIPPED:]), median(inside[SKIPPED:]), sum(passes) / len(passes)


def line_through(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Height at 0 and slope of a line with the least relative errors, weighted so that short times count too."""
    weights = [1 / y**2 for _, y in points]
    total = sum(weights)
    x0 = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    y0 = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    slope = sum(w * (x - x0) * (y - y0) for w, (x, y) in zip(weights, points, strict=True))
    slope /= sum(w * (x - x0) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    return max(0.0, y0 - slope * x0), slope


def measure_units() -> dict[str, tuple[float, float]]:
    """What it costs two processes to sum gradients (`ddp`), and to gather, gather again and share out a unit (`fsdp`):
    seconds at once, and seconds for a byte that a process sends.  Nothing is computed.
    """
    import torch
    from torch import Tensor, distributed, nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    class Stand(nn.Module):
        """A layer that has nine weights, as those of a Llama, and computes next to nothing."""

        def __init__(self, numbers: int) -> None:
            super().__init__()
            self.parts = nn.ParameterList(torch.zeros(numbers // 8, 1) for _ in range(8))

        def forward(self, states: Tensor) -> Tensor:
            return states + sum(part[0, 0] for part in self.parts)

    mesh = init_device_mesh("cpu", (2,))
    points: dict[str, list[tuple[float, float]]] = {"ddp": [], "fsdp": []}
    for numbers in UNIT_NUMBERS:
        layers = [Stand(numbers) for _ in range(4)]
        stack = nn.Sequential(*layers)
        for layer in layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        fully_shard(stack, mesh=mesh)
        states, gradient = torch.zeros(1, requires_grad=True), torch.zeros(numbers)

        def summed(gradient: Tensor = gradient) -> None:
            distributed.all_reduce(gradient)

        def gathered(stack: nn.Module = stack, states: Tensor = states) -> None:
            stack(states).sum().backward()
            stack.zero_grad()

        for name, work, count in (("ddp", summed, 1), ("fsdp", gathered, len(layers))):
            laps = []
            for _ in range(LAPS + 2):
                distributed.barrier()
                start = time.perf_counter()
                work()
                laps.append((time.perf_counter() - start) / count)
            sent = 4 * numbers * (2 if name == "fsdp" else 1)  # gloo shares gradients out by summing all of them
            points[name].append((sent, median(laps[2:])))
    return {name: line_through(pairs) for name, pairs in points.items()}


def largest(seconds: float) -> float:
    """The larger of the numbers of both processes."""
    import torch
    from torch import distributed

    number = torch.tensor(seconds, dtype=torch.double)
    distributed.all_reduce(number, distributed.ReduceOp.MAX)
    return float(number)


def compare_memory(data: str, folder: Path, cases: list[str], tell: Callable[[str], None]) -> None:
    """The table of memory."""
    tell("\n| | measured, MB | foretold, MB | off by |\n|---|---|---|---|")
    for name in cases:
        words = MEMORY_CASES[name]
        case = [*WORDS, data, *words]
        if "large vocabulary" in words:
            model = ["model=pretrained", f"model.path={folder}/model", "batch_size=16"]
            case = [word for word in [*case, *model] if word not in ("large vocabulary", *SCRATCH)]
        taken = largest(measure_memory(case, folder))
        memory = foretell(case)
        tell(f"| {name} | {taken / 1e6:.0f} | {memory / 1e6:.0f} | {memory / taken - 1:+.0%} |")


def compare_seconds(data: str, folder: Path, rounds: int, tell: Callable[[str], None]) -> None:
    """The table of seconds."""
    times: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    units: list[dict[str, tuple[float, float]]] = []
    for _ in range(rounds):
        units.append(measure_units())
        for case, words in STEP_CASES.items():
            for strategy in STRATEGIES:
                figures = measure_step([*WORDS, data, *words, f"trainer={strategy}"], folder)
                times.setdefault((case, strategy), []).append((largest(figures[0]), figures[1], figures[2]))

    def middle(case: str, strategy: str, place: int) -> float:
        return median(entry[place] for entry in times[case, strategy])

    wait, byte = ({kind: median(unit[kind][place] for unit in units) for kind in ("ddp", "fsdp")} for place in (0, 1))
    for kind in ("ddp", "fsdp"):
        tell(f"{kind}: l = {1e3 * wait[kind]:.2f} ms, B = {1e-9 / byte[kind]:.2f} GB/s")
    tell("\n| | strategy | passes | sent, MB | measured, ms | foretold, ms | off by |\n|---|---|---|---|---|---|---|")
    for case, words in STEP_CASES.items():
        from tunelab.training.components import build_components
        from tunelab.training.strategy_costs import Units

        model = build_components(read_settings([*WORDS, data, *words, "trainer=cpu"])).model
        unit = Units.of(model)
        whole, optimizer, passes = (middle(case, "cpu", place) for place in range(3))
        tell(f"| {case} | cpu | {passes:.1f} | 0 | {1e3 * whole:.0f} | | |")
        layers = model.config.num_hidden_layers
        for strategy in STRATEGIES[1:]:
            kind, passes = strategy.removesuffix("_cpu"), middle(case, strategy, 2)
            if kind == "ddp":
                sent, messages, steps = unit.every, 1 + unit.every // 25e6, optimizer
            else:
                sent = passes * (unit.outside + 2 * (unit.every - unit.outside) + 2 * unit.every) / 2
                messages, steps = passes * (layers + 1), optimizer / 2
            told = (whole - optimizer) / 2 + steps + messages * wait[kind] + sent * byte[kind]
            taken = middle(case, strategy, 0)
            figures = (
                f"{passes:.1f} | {sent / 1e6:.1f} | {1e3 * taken:.0f} | {1e3 * told:.0f} | {told / taken - 1:+.0%}"
            )
            tell(f"| {case} | {strategy} | {figures} |")


def rank_main(rank: int, folder: Path, only: str, rounds: int, cases: list[str]) -> None:
    """All cases on one of two processes; the first prints the tables."""
    import logging

    from torch import distributed

    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[rank]})
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    data = f"data.train={folder}/rows.jsonl"
    own = folder / str(rank)

    def tell(line: str) -> None:
        if rank == 0:
            print(line, flush=True)

    train([*WORDS, data, *SMALL, "trainer=fsdp_cpu", "max_steps=1"], own, [])[1]()  # what loads with the first run
    if only != "seconds":
        compare_memory(data, folder, cases, tell)
    if only != "memory":
        compare_seconds(data, folder, rounds, tell)
    distributed.barrier()


def write_model(folder: Path) -> None:
    """A model with a vocabulary of 16,000, the tokenizer of the starter beside it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunelab.config.schema import PretrainedModelConfig
    from tunelab.models.load_model import load_tokenizer

    config = LlamaConfig(
        vocab_size=16000, hidden_size=192, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer(PretrainedModelConfig(path="package:tunelab.starter/model")).save_pretrained(folder)


def write_rows(target: Path, rows: int = 256) -> None:
    """Instructions of equal length, so that each step is like the next."""
    words = "red blue green gold grey pink teal plum sand rust river mountain cloud stone".split()
    lines = [
        {
            "instruction": f"{' '.join(words)} {row:03}",
            "output": " ".join(words[(row + place) % 14] for place in range(60)),
        }
        for row in range(rows)
    ]
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    """Start two processes, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["memory", "seconds", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=2, help="of the table of seconds")
    parser.add_argument("--case", nargs="+", choices=list(MEMORY_CASES), default=list(MEMORY_CASES), metavar="NAME")
    parser.add_argument("--rank", nargs=2, metavar=("RANK", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        return rank_main(
            int(arguments.rank[0]), Path(arguments.rank[1]), arguments.only, arguments.rounds, arguments.case
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "rows.jsonl")
        write_model(Path(folder) / "model")
        ranks = []
        for rank in range(2):
            environment = {
                **os.environ, "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank), "NODE_RANK": "0",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "MALLOC_MMAP_THRESHOLD_": "65536",
            }  # fmt: skip
            command = [sys.executable, __file__, *sys.argv[1:], "--rank", str(rank), folder]
            ranks.append(subprocess.Popen(command, env=environment))
        codes = [process.wait() for process in ranks]
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
