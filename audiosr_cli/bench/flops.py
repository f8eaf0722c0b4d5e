"""The floor: what a model's multiplications cost at the highest rate at which this machine multiplies.

Counted are the products of matrices, convolutions and attention of one window (torch's FlopCounterMode), two FLOPs
for a multiplication with its addition. Not counted are Fourier transforms, what goes from element to element, and the
network that tells voices apart. LSTMs are not seen by the counter, so models with one have no count.
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
    from audiosr_cli.bench.peers import Pass

_SIZES = {"cpu": 1024, "cuda": 8192}
_CHANNELS, _KERNEL = 256, 3


def machine_gflops(kind: torch.dtype, device: str = "cpu", seconds: float = 0.8) -> float:
    """Billions of FLOPs a second in the fastest of the passes done in ``seconds``.

    Half of them are products of square matrices, half a convolution: the libraries behind the two need not be equally
    good on a processor (on an AMD EPYC with AVX-512, MKL's products reach half of what oneDNN's convolutions do).
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
    reached: float = 2e-9 * max(size**3 / product, weight.numel() * frames / convolution)
    return reached


def _fastest(run: Callable[[], Tensor], seconds: float, device: str) -> float:
    """Seconds of the fastest pass, after one that does not count."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        _wait(device)
        begun = time.perf_counter()
        run()
        _wait(device)
        best = min(best, time.perf_counter() - begun)
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def chain_gflop(models: Sequence[Runnable], device: str = "cpu") -> float | None:
    """Billions of FLOPs per second of one channel through ``models`` in a row; None where they cannot be counted."""
    total, signals = 0.0, 1
    for call in map(as_call, models):
        spec = call.spec
        x = torch.zeros(1, spec.inputs * spec.channels, spec.window, device=device)
        position = torch.zeros(1, dtype=torch.long) if spec.uses_position else None
        flops = _counted(call.model, partial(call, x, position))
        if flops is None:
            return None
        total += signals * flops * spec.in_rate / spec.hop / 1e9
        signals *= spec.sources if spec.inputs == 1 else 1
    return total


def peer_gflop(run: Pass, rate: int, device: str = "cpu", seconds: float = 4.0) -> float | None:
    """The same of a peer that is one module, over ``seconds`` at once."""
    if not isinstance(run, nn.Module):
        return None
    flops = _counted(run, partial(run, torch.zeros(1, 1, round(seconds * rate), device=device)))
    return None if flops is None else flops / seconds / 1e9


def _counted(module: nn.Module, run: Callable[[], object]) -> int | None:
    """FLOPs of one pass, ``run``, through ``module``; None where it has layers that cannot be counted."""
    if any(isinstance(part, nn.RNNBase) for part in module.modules()):
        return None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # inference mode hides operators from it
        run()
    flops: int = counter.get_total_flops()
    return flops
