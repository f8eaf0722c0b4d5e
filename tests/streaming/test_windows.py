"""streaming/windows.py: exact length and equal samples for every length, block size, ratio and batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count

import pytest
import torch
from conftest import HANG_S
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.runtime.threads import thread_pool
from audiosr_cli.streaming.speakers import Tracker
from audiosr_cli.streaming.windows import Engine

WINDOW, CONTEXT = 1300, 150
CORE = WINDOW - 2 * CONTEXT
LENGTHS = [0, 1, CONTEXT, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW + 17]
BLOCKS = [1, 17, 509, 44100]
TOLERANCE = 1e-5  # full scale 1: one window and the whole signal run different kernels


def make_spec(ratio: int = 1, sources: int = 1, overlap: int = 0, channels: int = 1) -> ModelSpec:
    return ModelSpec("fake", "separate", 8000, ratio, sources, channels, WINDOW, CONTEXT, CORE - overlap)


def identity(spec: ModelSpec) -> Callable[[Tensor], Tensor]:
    """Repeat every sample ``ratio`` times; source s is s + 1 times as loud."""

    def forward(x: Tensor) -> Tensor:
        middle = x[..., spec.context : x.shape[-1] - spec.context].repeat_interleave(spec.ratio, -1)
        return torch.stack([middle * (s + 1) for s in range(spec.sources)], dim=1)

    return forward


def delay(spec: ModelSpec) -> Callable[[Tensor], Tensor]:
    """Add the samples ``context`` earlier and later: wrong unless the context is real input."""

    def forward(x: Tensor) -> Tensor:
        both = (x[..., : -2 * spec.context] + x[..., 2 * spec.context :]).repeat_interleave(spec.ratio, -1)
        return both.unsqueeze(1)

    return forward


def convolution(spec: ModelSpec) -> Callable[[Tensor], Tensor]:
    """Filter with the whole context, add a bias and squash."""
    taps = torch.randn(spec.ratio, 1, 2 * CONTEXT + 1, generator=torch.Generator().manual_seed(3)) / 10

    def forward(x: Tensor) -> Tensor:
        output = torch.tanh(F.conv1d(x, taps) + 0.1)  # (B, ratio, T)
        return output.transpose(1, 2).flatten(1)[:, None, None]

    return forward


def stream(engine: Engine, x: Tensor, block: int) -> Tensor:
    pieces = [engine.push(x[:, i : i + block]) for i in range(0, x.shape[1], block)]
    return torch.cat([*pieces, engine.flush()], dim=-1)


def signal(length: int, channels: int = 1) -> Tensor:
    return torch.randn(channels, length, generator=torch.Generator().manual_seed(length)) * 0.3


def whole(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return forward(F.pad(x, (CONTEXT, CONTEXT)).unsqueeze(1)).transpose(0, 1).squeeze(2)  # (S, C, T)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("ratio", [1, 2, 3, 6])
@pytest.mark.parametrize("make", [identity, delay, convolution])
def test_stream_equals_one_pass_over_the_whole_signal(length: int, ratio: int, make: Callable) -> None:
    spec, x = make_spec(ratio), signal(length)
    forward = make(spec)
    expected = whole(forward, x) if length else torch.zeros(1, 1, 0)
    runs = [stream(Engine(spec, forward), x, block) for block in BLOCKS]
    for output in runs:
        assert output.shape == (1, 1, length * ratio)
        assert torch.equal(output, runs[0])
    torch.testing.assert_close(runs[0], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("block", [509, 44100])
@pytest.mark.parametrize("ratio", [1, 6])
def test_stream_of_a_million_samples_equals_one_pass(block: int, ratio: int) -> None:
    spec, x = make_spec(ratio), signal(1_000_000)
    for make in (identity, delay):
        output = stream(Engine(spec, make(spec)), x, block)
        assert torch.equal(output, whole(make(spec), x))


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("overlap", [0, 100, CORE // 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_batches_and_overlaps_do_not_change_the_output(batch: int, overlap: int, length: int) -> None:
    spec, x = make_spec(2, 1, overlap), signal(length)
    forward = convolution(spec)
    runs = [stream(Engine(spec, forward, batch=batch), x, block) for block in (17, 509, 44100)]
    assert all(torch.equal(output, runs[0]) for output in runs)
    expected = whole(forward, x) if length else torch.zeros(1, 1, 0)
    torch.testing.assert_close(runs[0], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("ratio", [1, 2])
@pytest.mark.parametrize("overlap", [1, 7, CORE // 2])
def test_crossfade_is_linear_and_symmetric(overlap: int, ratio: int) -> None:
    """Window j returns j everywhere; half way through the overlap both neighbours have the same weight."""
    spec, calls = make_spec(ratio, 1, overlap), count()

    def forward(windows: Tensor) -> Tensor:
        return torch.full((1, 1, 1, CORE * ratio), float(next(calls)))

    output = stream(Engine(spec, forward), signal(5 * spec.hop), 509)[0, 0]
    ramp = [(k + 0.5) / (overlap * ratio) for k in range(overlap * ratio)]
    plateau = (spec.hop - overlap) * ratio
    expected = [0.0] * spec.hop * ratio
    for j in range(1, 5):
        expected += [j - 1 + share for share in ramp] + [float(j)] * plateau
    torch.testing.assert_close(output, torch.tensor(expected), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("ahead", [0, 1, 4])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_windows_that_finish_out_of_order_are_joined_in_order(length: int, batch: int, ahead: int) -> None:
    spec, x = make_spec(2, 1, 100), signal(length, 2)
    forward = convolution(spec)
    calls = count()

    def delayed(windows: Tensor) -> Tensor:
        time.sleep(0.002 * (3 - next(calls) % 4))
        return forward(windows)

    expected = stream(Engine(spec, forward, 2, batch), x, 509)
    for block in (509, 44100):
        with thread_pool(4) as executor:
            engine = Engine(spec, delayed, 2, batch, executor=executor, ahead=ahead)
            assert torch.equal(stream(engine, x, block), expected)


def test_finished_output_is_returned_at_once() -> None:
    """Even if more windows may be in progress: the next block of a pipe may come late."""
    spec = make_spec()
    engine = Engine(spec, identity(spec), ahead=100)
    assert engine.push(signal(3 * CORE + CONTEXT)).shape == (1, 1, 3 * CORE)


def test_no_more_batches_are_in_progress_than_allowed() -> None:
    spec, wait, started = make_spec(), threading.Event(), count()

    def forward(windows: Tensor) -> Tensor:
        next(started)
        wait.wait(HANG_S)
        return identity(spec)(windows)

    with thread_pool(8) as executor:
        engine = Engine(spec, forward, executor=executor, ahead=2)
        assert not engine.push(signal(2 * CORE + CONTEXT)).numel()
        threading.Timer(0.2, wait.set).start()
        engine.push(signal(CORE))  # waits for the first
        assert wait.is_set()
        assert next(started) == 3


def test_an_error_in_a_window_is_raised() -> None:
    spec = make_spec()

    def forward(windows: Tensor) -> Tensor:
        raise MemoryError

    with thread_pool(2) as executor, pytest.raises(MemoryError):
        stream(Engine(spec, forward, executor=executor, ahead=2), signal(10_000), 509)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_sources_that_a_model_shuffles_are_put_in_order(channels: int, batch: int) -> None:
    spec = make_spec(1, 3, 200)
    x = signal(20_000) * torch.tensor([1.0, -1.0, 1.0])[:channels, None]
    calls = 0

    def split(x: Tensor) -> Tensor:
        """Return three orthogonal sources (S, …): the quiet, the medium and the loud samples."""
        return torch.stack([x * (x.abs() < 0.15), x * ((x.abs() >= 0.15) & (x.abs() < 0.35)), x * (x.abs() >= 0.35)])

    def forward(windows: Tensor) -> Tensor:
        nonlocal calls
        shuffled = []
        for window in windows:
            order = torch.randperm(3, generator=torch.Generator().manual_seed(calls))
            shuffled.append(split(window[..., CONTEXT:-CONTEXT])[order])
            calls += 1
        return torch.stack(shuffled)

    output, sources = stream(Engine(spec, forward, channels, batch, Tracker()), x, 509), split(x)
    first = [int((output[s, 0] - sources[:, 0]).abs().amax(-1).argmin()) for s in range(3)]
    assert sorted(first) == [0, 1, 2]
    torch.testing.assert_close(output, sources[first], rtol=0, atol=1e-6)


def test_a_stereo_model_processes_both_channels_together() -> None:
    spec, x = make_spec(1, 1, 0, channels=2), signal(5000, 2)

    def forward(windows: Tensor) -> Tensor:
        return windows[..., CONTEXT:-CONTEXT].flip(1).unsqueeze(1)  # swaps left and right

    assert torch.equal(stream(Engine(spec, forward, 2), x, 700)[0], x.flip(0))


def test_buffer_holds_one_batch_of_windows() -> None:
    spec = make_spec()
    engine = Engine(spec, identity(spec), batch=4)
    for _ in range(100):
        engine.push(signal(10_000))
        assert engine._buffer.numel() == WINDOW + 3 * CORE
    assert engine.push(torch.zeros(1, 0)).shape == (1, 1, 0)
