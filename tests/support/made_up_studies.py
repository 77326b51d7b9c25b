"""Study folders as a search leaves them, made up without one."""

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelab.search.space import build_space, space_as_dict

SPACE = {"lr": "interval(1e-5,1e-3)", "regularization.dropout": "interval(0.0,0.5)", "optimizer": "adamw,sgd,lion"}
LAYERS = "int(tag(log,interval(1,64)))"


def study(root: Path, trials: int = 40, *, seeds: int = 1, wanted: float = 1e-2, **request: Any) -> Path:
    """A random search whose loss falls towards a rate of `wanted`, beyond which runs diverge."""
    words = {**SPACE, "adapter.rank": LAYERS}
    space, dice, lines = build_space(words, {}, {}), random.Random(0), list[dict[str, Any]]()
    root.mkdir(parents=True, exist_ok=True)
    for number in range(trials):
        params: dict[str, Any] = {
            "lr": 10 ** dice.uniform(-5, -3),
            "regularization.dropout": dice.uniform(0, 0.5),
            "optimizer": ("adamw", "sgd", "lion")[number % 3],
            "adapter.rank": round(math.exp(dice.uniform(0, math.log(64)))),
        }
        for seed in range(seeds):
            lines.append(line(len(lines), params | ({"seed": seed} if seeds > 1 else {}), loss(params, wanted, dice)))
    lines.append(line(len(lines), {**lines[0]["params"], "lr": 9.9e-4}, math.nan))
    (root / "trials.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    facts = {"objectives": ["val/loss"], "directions": ["minimize"], "sampler": "random", "pruner": "none"}
    (root / "study.json").write_text(json.dumps(facts))
    typed = ["data=mine", "search=random", *(f"{name}={value}" for name, value in words.items())]
    asked = {"fixed": ["data=mine"], "arguments": typed, "dimensions": space_as_dict(space), **request}
    (root / "search.json").write_text(json.dumps(asked))
    return root


def loss(params: Mapping[str, Any], wanted: float, dice: random.Random) -> float:
    """Mostly the rate, a little dropout, optimizers that differ by a constant."""
    off = math.log10(params["lr"] / wanted)
    base = 1 + 0.3 * off**2 + (params["regularization.dropout"] - 0.1) ** 2
    return base + {"adamw": 0.0, "sgd": 0.2, "lion": 0.05}[params["optimizer"]] + dice.gauss(0, 0.01)


def line(number: int, params: Mapping[str, Any], value: float) -> dict[str, Any]:
    """A line of trials.jsonl; one without a finite loss has diverged."""
    whole = math.isfinite(value)
    return {
        "number": number,
        "state": "complete" if whole else "failed", "params": dict(params),
        "overrides": [f"{name}={one}" for name, one in params.items()], "value": value if whole else None,
        "values": [value] if whole else [], "seconds": 30.0 + number % 7, "origin": "random" if number else "default",
        "kind": None if whole else "diverged", "reason": None, "excess": None,
        "curve": {str(step): value + 2.0 / step for step in range(1, 7)} if whole else {}, "scores": {},
    }  # fmt: skip
