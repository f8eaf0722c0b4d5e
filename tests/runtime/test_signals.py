"""runtime/signals.py: which signals end a command, and how."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from audiosr_cli.runtime import signals
from audiosr_cli.train.signals import Interrupts

ENDING = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what the tests change."""
    monkeypatch.setattr(signals, "_received", [])
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_termination_signal_unwinds_once(number: signal.Signals) -> None:
    """Others that follow it, as a closed terminal sends them, do not interrupt the clean-up."""
    signals.exit_on_termination()
    with pytest.raises(SystemExit) as stop:
        signal.raise_signal(number)
    assert stop.value.code == 128 + number
    for again in ENDING:
        signal.raise_signal(again)
    assert signals.received() == number


def test_hanging_up_stays_ignored_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.exit_on_termination()
    signal.raise_signal(signal.SIGHUP)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGHUP)
    assert (interrupts.signal_number, signals.received()) == (0, None)


@pytest.mark.parametrize("number", ENDING)
def test_training_stops_after_a_step_and_exits_with_the_code_of_the_signal(number: signal.Signals) -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(number)
    with pytest.raises(SystemExit) as stop:
        interrupts.end()
    assert stop.value.code == 128 + number
