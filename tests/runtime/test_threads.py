"""runtime/threads.py: parallel calls with single-threaded operators; all settings are restored."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from conftest import HANG_S

from audiosr_cli.runtime.threads import flushes_subnormals, thread_pool


@pytest.fixture(autouse=True)
def three_operator_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_a_single_thread_is_the_calling_one() -> None:
    with thread_pool(1) as executor:
        seen = executor.submit(lambda: (threading.current_thread(), torch.get_num_threads()))
        assert seen.done()
        assert seen.result() == (threading.current_thread(), 1)
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: 1 // 0)
    assert torch.get_num_threads() == 3


def test_calls_run_in_parallel_with_one_operator_thread_each() -> None:
    meeting = threading.Barrier(3, timeout=HANG_S)

    def meet() -> int:
        meeting.wait()  # raises unless all three meet
        return torch.get_num_threads()

    with thread_pool(3) as executor:
        assert torch.get_num_threads() == 1
        assert [seen.result() for seen in [executor.submit(meet) for _ in range(3)]] == [1, 1, 1]
    assert torch.get_num_threads() == 3


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor does not flush subnormal numbers")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("before", [False, True])
def test_subnormal_numbers_are_zero_within_a_pool(threads: int, before: bool) -> None:
    torch.set_flush_denormal(before)
    try:
        tiny = torch.tensor([1 << 19], dtype=torch.int32).view(torch.float32)  # 2^-130, written as bits
        with thread_pool(threads) as executor:
            assert flushes_subnormals()
            assert executor.submit(lambda: (flushes_subnormals(), float(tiny * 2))).result() == (True, 0.0)
        assert flushes_subnormals() == before
    finally:
        torch.set_flush_denormal(False)


def test_calls_that_have_not_started_are_cancelled_on_an_interrupt() -> None:
    started, wait = list[int](), threading.Event()

    def work(number: int) -> None:
        started.append(number)
        wait.wait(HANG_S)

    with pytest.raises(KeyboardInterrupt), thread_pool(2) as executor:
        computing = [executor.submit(work, number) for number in range(20)]
        while len(started) < 2:
            time.sleep(0.001)
        raise KeyboardInterrupt
    wait.set()
    assert sorted(started) == [0, 1]
    assert sum(one.cancelled() for one in computing) == 18
    assert torch.get_num_threads() == 3
