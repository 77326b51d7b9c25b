"""While packages load Python looks for no garbage, and afterwards as before."""

import gc
from collections.abc import Iterator

import pytest

from tunelab.runs import garbage
from tunelab.runs.garbage import mark_own_process, packages_loading, searches_paused


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts in a process of a user's own, and leaves nothing set aside."""
    monkeypatch.setattr(garbage, "_own_process", [])
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()


def test_no_search_is_made_within_and_those_after_it_are_as_before() -> None:
    with searches_paused():
        assert not gc.isenabled()
        with searches_paused():
            pass
        assert not gc.isenabled()  # the outer one goes on
    assert gc.isenabled()


def test_a_fault_ends_the_pause_too() -> None:
    with pytest.raises(ImportError), packages_loading():
        raise ImportError
    assert gc.isenabled()


def test_a_user_who_searches_by_hand_keeps_doing_so() -> None:
    gc.disable()
    with packages_loading():
        pass
    assert not gc.isenabled()


def test_only_a_process_of_ours_sets_aside_what_was_loaded() -> None:
    with packages_loading():
        pass
    assert gc.get_freeze_count() == 0  # of a notebook, objects of the user would be among them

    mark_own_process()
    with packages_loading():
        pass
    assert gc.get_freeze_count() > 0
