"""Does the best learning rate stay in place when the width grows?  Measures it, with and without muP.

    python bench/width/run.py            # trains 112 small models, ten to twenty minutes on one core
    python bench/width/run.py --draw     # draws the figure from the results again

Each model reads the built-in world's prose for a few steps; its score is the loss on held-back prose.  Writes
`results.csv` (one line a model), `results.json` (best rate at each width, and what the conclusion rests on) and
the figures `standard.svg` and `mup.svg` beside this file.  An interrupted measurement goes on where it stopped.
"""

import argparse
import csv
import json
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean

import torch
from hydra import compose, initialize_config_dir

from tunelab.config.schema import PretrainedModelConfig, RunConfig
from tunelab.config.validate import validate_config
from tunelab.data.batching import mix_seeds
from tunelab.models.load_model import load_tokenizer
from tunelab.optim.param_groups import build_param_groups
from tunelab.optim.schedules import linear
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.lines import line_chart
from tunelab.starter.corpora import draw_documents
from tunelab.starter.world import whole_world
from tunelab.training.components import build_model, build_task

HERE = Path(__file__).resolve().parent
WIDTHS, HEADS = (32, 64, 128, 256), 2
EXPONENTS = range(-9, -2)  # rates 2^-9 to 2^-3
SEEDS = (0, 1)
STEPS, WARMUP, SEQUENCES, TOKENS = 80, 8, 16, 48
KINDS = {"standard": "false", "mup": "true"}
FIELDS = ("kind", "width", "exponent", "seed", "loss")
Key = tuple[str, int, int, int]


def settings_of(kind: str, width: int, exponent: int, seed: int) -> RunConfig:
    """The settings of one model, as a command line would give them."""
    sizes = [f"model.width={width}", "model.depth=2", f"model.heads={HEADS}", f"model.context={TOKENS}"]
    base = [f"model.mup={KINDS[kind]}", f"model.base_width={WIDTHS[0]}", f"model.base_head={WIDTHS[0] // HEADS}"]
    rest = ["regularization=none", "optimizer.betas=[0.9,0.95]", f"lr={2.0**exponent!r}", f"seed={seed}"]
    with initialize_config_dir(str(HERE.parents[1] / "conf"), version_base="1.3"):
        return validate_config(compose("config", overrides=["model=scratch", "data=starter", *sizes, *base, *rest]))


def tokens_of(seed: int, documents: int) -> torch.Tensor:
    """Prose of the built-in world, concatenated, (tokens,) int64."""
    tokenizer = load_tokenizer(PretrainedModelConfig(path="package:tunelab.starter/model"))
    texts = draw_documents(whole_world(), seed=seed, count=documents, forbidden=set())
    return torch.tensor([token for text in texts for token in [*tokenizer(text)["input_ids"], 2]])


def crops(stream: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Stretches of a stream, (count, TOKENS + 1), the same ones for the same seed."""
    draw = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(stream) - TOKENS - 1, (count,), generator=draw)
    return torch.stack([stream[start : start + TOKENS + 1] for start in starts.tolist()])


def loss_of(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Nats per token."""
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def train(key: Key, stream: torch.Tensor, held: torch.Tensor) -> float:
    """Train one model; its loss on held-back prose."""
    run = settings_of(*key)
    model = build_model(run, build_task(run), load_tokenizer(run.model))
    optimizer = torch.optim.AdamW(
        build_param_groups(model, run), lr=run.lr, betas=tuple(run.optimizer.arguments["betas"])
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(linear, total=STEPS, warmup=WARMUP))
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, crops(stream, SEQUENCES, mix_seeds(key[3], step))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        return float(loss_of(model.eval(), held))


def read(path: Path) -> dict[Key, float]:
    """The models that are measured already."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (r["kind"], int(r["width"]), int(r["exponent"]), int(r["seed"])): float(r["loss"])
            for r in csv.DictReader(file)
        }


def measure(path: Path) -> None:
    """Train every model that is not in the table yet."""
    torch.set_num_threads(1)
    done = read(path)
    stream, held = tokens_of(1, 1500), crops(tokens_of(2, 200), 64, 0)
    if not done:
        path.write_text(",".join(FIELDS) + "\n", encoding="utf-8")
    for key in product(KINDS, WIDTHS, EXPONENTS, SEEDS):
        if key not in done:
            line = [*key, f"{train(key, stream, held):.4f}"]
            print(*line, flush=True)
            with path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(line)


def mean_losses(table: dict[Key, float]) -> dict[str, dict[int, dict[int, float]]]:
    """Loss by kind, width and exponent, over the seeds."""
    return {
        kind: {width: {e: mean(table[kind, width, e, seed] for seed in SEEDS) for e in EXPONENTS} for width in WIDTHS}
        for kind in KINDS
    }


def vertex(losses: dict[int, float]) -> float:
    """The exponent of the best rate, between grid points: of the parabola through the best one and its neighbours."""
    best = min(losses, key=lambda exponent: losses[exponent])
    if best - 1 not in losses or best + 1 not in losses:
        return float(best)
    left, middle, right = (losses[best + step] for step in (-1, 0, 1))
    return best + (left - right) / (2 * (left - 2 * middle + right))


def summary(table: dict[Key, float]) -> dict[str, dict[str, object]]:
    """The numbers that the conclusion rests on.

    For each kind: best exponent at each width; how far it moves from the narrowest to the widest model, in powers of
    two; and what is lost at the widest when the rate found at the narrowest is taken over.
    """
    found: dict[str, dict[str, object]] = {}
    for kind, by_width in mean_losses(table).items():
        best = {width: vertex(losses) for width, losses in by_width.items()}
        narrow, wide = by_width[WIDTHS[0]], by_width[WIDTHS[-1]]
        carried = min(narrow, key=lambda exponent: narrow[exponent])
        found[kind] = {
            "best_exponent": {str(width): round(exponent, 2) for width, exponent in best.items()},
            "drift": round(best[WIDTHS[-1]] - best[WIDTHS[0]], 2),
            "best_loss": {str(width): round(min(losses.values()), 4) for width, losses in by_width.items()},
            "loss_at_the_rate_of_the_narrowest": round(wide[carried], 4),
            "lost_by_taking_it_over": round(wide[carried] - min(wide.values()), 4),
        }
    return found


def figures(table: dict[Key, float]) -> dict[str, str]:
    """A chart for each kind: loss over rate, a line a width, a ring for each seed."""
    titles = {
        "standard": "model.mup=false: the best rate falls as the width grows",
        "mup": "model.mup=true: the best rate stays as the width grows",
    }
    drawn = {}
    for kind, by_width in mean_losses(table).items():
        narrow = by_width[WIDTHS[0]]
        lines = [
            Series(
                f"width {width}",
                [2.0**e for e in EXPONENTS],
                list(losses.values()),
                points=[(2.0**e, table[kind, width, e, seed]) for e in EXPONENTS for seed in SEEDS],
            )
            for width, losses in by_width.items()
        ]
        best = ReferenceLine(2.0 ** min(narrow, key=lambda exponent: narrow[exponent]), f"best of width {WIDTHS[0]}")
        labels = {"x_label": "learning rate", "y_label": f"loss on held-back prose after {STEPS} steps"}
        drawn[kind] = line_chart(lines, title=titles[kind], **labels, x_scale="log", marks=[best])
    return drawn


def main() -> None:
    """Read the command line, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="train nothing, draw from results.csv")
    if not parser.parse_args().draw:
        measure(HERE / "results.csv")
    table = read(HERE / "results.csv")
    text = json.dumps(summary(table), indent=2) + "\n"
    (HERE / "results.json").write_text(text, encoding="utf-8")
    for kind, drawing in figures(table).items():
        (HERE / f"{kind}.svg").write_text(drawing, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
