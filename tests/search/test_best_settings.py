"""best.yaml of a search that chose an experiment: all of its settings, since one experiment cannot name another."""

from pathlib import Path

from tunelab.cli.compose_config import compose_settings
from tunelab.search.initial_trials import experiment_text


def test_what_an_experiment_sets_is_in_the_best_settings(tmp_path: Path) -> None:
    (tmp_path / "conds" / "experiment").mkdir(parents=True)
    text = (
        "# @package _global_\ndefaults:\n  - override /optimizer: sgd\nmax_steps: 7\nseed: 3\ndata: {max_tokens: 64}\n"
    )
    (tmp_path / "conds" / "experiment" / "mine.yaml").write_text(text)
    fixed = ["experiment=mine", "data=instruction", "data.train=x.jsonl", "seed=5", "lr=0.001"]
    best = experiment_text("Trial 0.", fixed, {"experiment", "data", "optimizer"}, [tmp_path / "conds"])
    (tmp_path / "best.yaml").write_text(best)
    settings = compose_settings([f"experiment={tmp_path}/best"])
    assert (settings.max_steps, settings.seed, settings.lr, settings.data.max_tokens) == (7, 5, 0.001, 64)
    assert settings.data.train == "x.jsonl" and "SGD" in str(settings.optimizer.target)
