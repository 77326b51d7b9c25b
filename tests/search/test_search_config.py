"""What a search varies where nothing is named, and ranges that follow the rate of the run."""

import pytest

from tunelab.cli.compose_config import compose_search
from tunelab.errors import ConfigError
from tunelab.search.run_search import PreparedSearch, prepare
from tunelab.search.space import NumericRange

LABELS = ["data=classification", "data.train=x.csv", "data.text=a", "data.label=b"]


def prepared(*words: str) -> PreparedSearch:
    config, arguments = compose_search(list(words))
    return prepare(config, arguments)


@pytest.mark.parametrize(
    ("words", "name", "setting"),
    [
        ([], "sft", "scheduler.warmup"),
        (["adapter=lora"], "lora", "adapter.rank"),
        (LABELS, "classification", "data.label_smoothing"),
        ([*LABELS, "adapter=dora"], "lora", "adapter.dropout"),
    ],
)
def test_a_search_that_names_nothing_takes_the_space_of_task_and_adapter(
    words: list[str], name: str, setting: str
) -> None:
    search = prepared("search=bayes", *words)

    assert setting in search.request.space.unconditional
    assert f"the space {name} of this task and adapter" in search.request.notes[0]
    assert "search/space=NAME" in search.request.notes[0]
    assert search.request.arguments[-1] == f"search/space={name}", "the printed command goes on with the same space"


def test_what_is_named_to_vary_is_all_that_varies() -> None:
    assert set(prepared("search=random", "lr=interval(1e-5,1e-3)").request.space.unconditional) == {"lr"}
    assert "adapter.rank" in prepared("search=random", "search/space=lora", "adapter=lora").request.space.unconditional
    with pytest.raises(ConfigError, match="nothing varies"):
        prepared("optimizer=sgd")


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        (["optimizer=adamw"], 1e-3),
        (["optimizer=sgd"], 0.1),
        (["lr=5e-5"], 5e-5),
        (["adapter=lora", "search/space=lora", "model=pretrained", "model.path=x"], 2e-4),
    ],
)
def test_a_range_of_rates_reaches_from_a_tenth_to_ten_times_the_run_s_own(words: list[str], rate: float) -> None:
    config, arguments = compose_search(["search=random", "search/space=lr_only", *words])
    own = float(config.lr)

    dimension = prepare(config, arguments).request.space.unconditional["lr"]

    assert own == pytest.approx(rate)
    assert isinstance(dimension, NumericRange)
    assert (dimension.low, dimension.high, dimension.log) == (pytest.approx(own / 10), pytest.approx(own * 10), True)
