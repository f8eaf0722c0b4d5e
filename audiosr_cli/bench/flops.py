"""Count FLOPs, and measure this machine's rate: the roofline is the time that a model's multiplications need at it.

Counted are matrix products, convolutions and attention of one window (torch's FlopCounterMode), two FLOPs for a
multiply-add. Not counted are Fourier transforms, element-wise operations and the speaker encoder. The counter does not
see LSTMs, so models with one have no count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from audiosr_cli.models.runner import Runnable, as_call

if TYPE_CHECKING:
    from audiosr_cli.bench.peers import PeerForward

_SIZES = {"cpu": 1024, "cuda": 8192}
_CHANNELS, _KERNEL = 256, 3


def machine_gflops(kind: torch.dtype, device: str = "cpu", seconds: float = 0.8) -> float:
    """Measure the highest rate of this machine in billions of FLOPs a second.

    Times products of square matrices for one half of ``seconds``, and a convolution for the other: the libraries behind
    the two may differ in speed (on an AMD EPYC with AVX-512, MKL's products reach half the rate of oneDNN's
    convolutions).
    """
    size = _SIZES[device]
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, size, size, generator=generator).to(device, kind)
    frames = size * size // _CHANNELS
    wave, weight = one.reshape(1, _CHANNELS, frames), one.flatten()[: _CHANNELS**2 * _KERNEL]
    weight = weight.reshape(_CHANNELS, _CHANNELS, _KERNEL)
    with torch.inference_mode():
        product = _fastest(lambda: torch.mm(one, other), seconds / 2, device)
        convolution = _fastest(lambda: torch.conv1d(wave, weight, padding=_KERNEL // 2), seconds / 2, device)
    rate: float = 2e-9 * max(size**3 / product, weight.numel() * frames / convolution)
    return rate


def _fastest(run: Callable[[], Tensor], seconds: float, device: str) -> float:
    """Return the seconds of the fastest pass, after a warm-up."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        _synchronize(device)
        begin = time.perf_counter()
        run()
        _synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return best


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def chain_gflop(models: Sequence[Runnable], device: str = "cpu") -> float | None:
    """Count billions of FLOPs per second of one channel through a chain of models; None if they cannot be counted."""
    total, signals = 0.0, 1
    for call in map(as_call, models):
        spec = call.spec
        x = torch.zeros(1, spec.inputs * spec.channels, spec.window, device=device)
        position = torch.zeros(1, dtype=torch.long) if spec.uses_position else None
        flops = _count(call.model, partial(call, x, position))
        if flops is None:
            return None
        total += signals * flops * spec.in_rate / spec.hop / 1e9
        signals *= spec.speakers if spec.inputs == 1 else 1
    return total


def peer_gflop(run: PeerForward, rate: int, device: str = "cpu", seconds: float = 4.0) -> float | None:
    """Count the same for a peer that is a single module, on ``seconds`` at once."""
    if not isinstance(run, nn.Module):
        return None
    flops = _count(run, partial(run, torch.zeros(1, 1, round(seconds * rate), device=device)))
    return None if flops is None else flops / seconds / 1e9


def _count(module: nn.Module, run: Callable[[], object]) -> int | None:
    """Count the FLOPs of one pass, ``run``, of ``module``; None if the module has an LSTM."""
    if any(isinstance(part, nn.RNNBase) for part in module.modules()):
        return None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # inference mode hides operators from it
        run()
    flops: int = counter.get_total_flops()
    return flops
