"""The title of a run in a tracker."""

from tunelab.tracking.loggers import MAX_TITLE_LENGTH, run_title


def test_a_run_is_named_after_its_place_and_what_was_changed() -> None:
    assert run_title("2026-01-02", ["optimizer=sgd", "lr=0.1"]) == "2026-01-02 optimizer=sgd lr=0.1"
    assert run_title("2026-01-02", []) == "2026-01-02"


def test_words_that_try_nothing_are_left_out() -> None:
    noise = [
        "logger.group=a",
        "logger=csv",
        "hydra.run.dir=x",
        "trial.id=3",
        "save=false",
        "+search.parallel_trials=2",
        "name=n",
    ]
    assert run_title("3", [*noise, "lr=0.1"]) == "3 lr=0.1"


def test_what_all_trials_of_a_study_have_is_left_out() -> None:
    assert run_title("3", ["model=gpt2", "lr=0.1"], ["model=gpt2"]) == "3 lr=0.1"


def test_a_long_name_is_cut_between_words() -> None:
    name = run_title("run", [f"key{number}={number}" for number in range(40)])
    assert len(name) <= MAX_TITLE_LENGTH + 2
    assert name.endswith(" …")
    assert name.split()[-2].startswith("key")
