"""The signals that stop a run."""

import signal
from collections.abc import Iterator

import pytest

from tunelab.runs.stop_signals import STOP_EXITS, STOP_SIGNALS, handle_stop_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of before, put back."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # nohup, if these tests run under it, ignores one
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_each_stop_signal_leaves_the_status_that_a_shell_gives_it() -> None:
    assert STOP_EXITS == {130: "SIGINT", 138: "SIGUSR1", 129: "SIGHUP", 143: "SIGTERM"}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_nohup_ignores_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    received: list[int] = []

    handle_stop_signals(lambda number, frame: received.append(number))
    for each in STOP_SIGNALS:
        signal.raise_signal(each)

    assert received == [each for each in STOP_SIGNALS if each != number]


def test_ctrl_c_stays_a_keyboard_interrupt_where_it_is_not_handled() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert signal.SIGINT not in handle_stop_signals(lambda number, frame: None, ctrl_c=False)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
