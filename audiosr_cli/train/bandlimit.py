"""Band-limiting for super-resolution: the filters, resamplers and codecs that recordings went through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from audiosr_cli.dsp.spectra import constant, irfft, raised_cosine
from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import ascending, within
from audiosr_cli.train.corpus import Recipe
from audiosr_cli.train.transfer import upload_all

FAMILIES = ("butterworth", "chebyshev", "elliptic", "bessel", "sinc")
ORDERS = tuple(range(2, 12))

KEYS = ("cutoff", "roll_off", "plain", "filter", "folded", "shelf_db", "shelf_from")  # of a recipe

_LOWEST, _POINTS_PER_OCTAVE, _POINTS = -4, 128, 1281  # the grid of log2(frequency / cutoff): -4 … 6
_FLOOR_DB = -120.0
_DOWN_3_DB = 0.636  # of a raised cosine's fall, from its end
_RIPPLE_DB, _STOP_DB = 0.5, 60.0  # of Chebyshev and elliptic filters


@dataclass(frozen=True)
class Degradation:
    """How recordings lose their highs.

    The cutoff is log-uniform in ``cutoff_hz``, or with the chance ``usual`` one of ``usual_hz``. With the chance
    ``plain`` the filter is a resampler's: flat, then a raised cosine down to nothing at the cutoff. Else it is
    of one of FAMILIES with an order of ORDERS (sinc: a brick wall), and with the chance ``resampled`` what it
    leaves above the cutoff is folded back as by decimation to twice the cutoff. With the chance ``shelf`` the
    octaves below the cutoff are turned down by up to 40 dB, as codecs do before they stop.
    """

    cutoff_hz: tuple[float, float] = (1000.0, 16000.0)
    usual_hz: tuple[float, ...] = (4000.0, 8000.0)
    usual: float = 0.4
    plain: float = 0.5
    resampled: float = 0.5
    shelf: float = 0.1

    def __post_init__(self) -> None:
        within(self, 0, 1, "usual", "plain", "resampled", "shelf")
        ascending(self, "cutoff_hz")
        if not min(self.cutoff_hz + self.usual_hz) > 0:
            raise UsageError(f"cutoff_hz = {list(self.cutoff_hz)}, usual_hz = {list(self.usual_hz)}: must be above 0")


def draw(degradation: Degradation, count: int, generator: torch.Generator) -> Recipe:
    """The random choices of ``count`` band-limited recordings."""
    d = degradation

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator)

    low, high = d.cutoff_hz
    cutoff = low * (high / low) ** uniform()
    if d.usual_hz:
        picked = torch.tensor(d.usual_hz)[torch.randint(len(d.usual_hz), (count,), generator=generator)]
        cutoff = torch.where(uniform() < d.usual, picked, cutoff)
    plain = uniform() < d.plain
    return {
        "cutoff": cutoff,
        "roll_off": torch.where(plain, 0.01 + 0.12 * uniform(), 0.02),
        "plain": plain,
        "filter": torch.randint(len(FAMILIES) * len(ORDERS), (count,), generator=generator),
        "folded": ~plain & (uniform() < d.resampled),
        "shelf_db": torch.where(uniform() < d.shelf, -40 * uniform(), 0),
        "shelf_from": 0.4 + 0.5 * uniform(),  # of the cutoff
    }


def where_content_ends(recipe: Recipe) -> Tensor:
    """Where each recording has lost 3 dB, or an elliptic filter's ripple, in Hz: (B,). Shelves are not counted."""
    return recipe["cutoff"] * torch.where(recipe["plain"], 1 - _DOWN_3_DB * recipe["roll_off"], 1.0)


def band_limit(waves: Tensor, recipe: Recipe, sample_rate: int) -> Tensor:
    """``waves`` (B, T) band-limited as ``recipe`` has it, with zero phase: nothing is delayed.

    The filters' magnitudes are applied to the spectrum of the whole crop, whose ends so wrap around.
    """
    r = {key: value.unsqueeze(-1) for key, value in upload_all(recipe, waves.device).items()}  # (B, 1)
    length = waves.shape[-1]
    spectrum = torch.fft.rfft(waves)
    frequency = torch.fft.rfftfreq(length, 1 / sample_rate, device=waves.device)  # (F,)
    relative = frequency / r["cutoff"]  # (B, F)
    table = _table(waves.device)[r["filter"].squeeze(-1)]  # (B, _POINTS)
    place = ((relative.clamp_min(2.0**_LOWEST).log2() - _LOWEST) * _POINTS_PER_OCTAVE).clamp(0, _POINTS - 1.001)
    below = place.long()
    before, after = table.gather(1, below), table.gather(1, below + 1)
    filtered = spectrum * torch.where(r["plain"], 1.0, _gain(before + (place - below) * (after - before)))
    mirror = (2 * r["cutoff"] * length / sample_rate).long() - torch.arange(len(frequency), device=waves.device)
    folded = filtered.gather(1, mirror.clamp(0, len(frequency) - 1)).conj() * (r["folded"] & (mirror < len(frequency)))
    wall = torch.where(r["plain"] | r["folded"], raised_cosine(relative, r["roll_off"]), 1.0)
    octaves = (relative / r["shelf_from"]).clamp_min(1e-9).log2() * 4  # a quarter of an octave from none to all
    shelf = _gain(r["shelf_db"] * octaves.clamp(0, 1))
    return irfft((filtered + folded) * wall * shelf, length)


def _gain(level_db: Tensor) -> Tensor:
    return torch.pow(10, level_db / 20)


@constant
def _table(device: torch.device) -> Tensor:
    """Magnitudes in dB of every family and order over the grid: (families * orders, _POINTS) float32."""
    x = torch.pow(2.0, torch.arange(_POINTS, dtype=torch.float64) / _POINTS_PER_OCTAVE + _LOWEST)
    rows = [magnitude_db(family, order, x) for family in FAMILIES for order in ORDERS]
    return torch.stack(rows).float().clamp_min(_FLOOR_DB).to(device)


def magnitude_db(family: str, order: int, x: Tensor) -> Tensor:
    """Level in dB of an analogue low-pass at ``x`` = frequency / cutoff, float64, by the textbook formulas.

    The cutoff is where Butterworth and Bessel filters are down 3 dB, where Chebyshev (type I) and elliptic
    ones leave their ripple of 0.5 dB, and where a sinc stops. Elliptic ones stay 60 dB down above.
    """
    if family == "sinc":
        return torch.where(x <= 1, 0.0, _FLOOR_DB).double()
    if family == "bessel":
        return _bessel_db(order, x)
    if family == "butterworth":
        excess = x.pow(2 * order)
    else:
        ripple = 10 ** (_RIPPLE_DB / 10) - 1
        rational = _chebyshev(order, x) if family == "chebyshev" else _elliptic(order, x, ripple)
        excess = ripple * rational.square()
    return -10 * torch.log10(1 + excess)


def _chebyshev(order: int, x: Tensor) -> Tensor:
    """Chebyshev's polynomial of the first kind."""
    inside = torch.cos(order * torch.acos(x.clamp_max(1)))
    return torch.where(x <= 1, inside, torch.cosh(order * torch.acosh(x.clamp_min(1))))


def _bessel_db(order: int, x: Tensor) -> Tensor:
    """The reverse Bessel polynomial's filter, its frequency scaled so that it is 3 dB down at 1."""
    terms = [
        math.factorial(2 * order - k) / (2 ** (order - k) * math.factorial(k) * math.factorial(order - k))
        for k in range(order + 1)
    ]

    def level(w: Tensor) -> Tensor:
        s = 1j * w
        return 20 * torch.log10(terms[0] / sum(c * s**k for k, c in enumerate(terms)).abs())

    low, high = 0.1, 20.0
    for _ in range(60):  # bisection
        middle = (low + high) / 2
        low, high = (middle, high) if level(torch.tensor(middle).double()) > -10 * math.log10(2) else (low, middle)
    return level(x * low)


def _elliptic(order: int, x: Tensor, ripple: float) -> Tensor:
    """The elliptic rational function R_n(x) whose stop band begins where 60 dB are reached.

    Its selectivity follows from the degree equation; zeros lie at cd((2i - 1) K / n), poles at selectivity
    over zero (Orfanidis, Lecture Notes on Elliptic Filter Design, 2006; functions by Landen's transformation).
    """
    k1 = math.sqrt(ripple / (10 ** (_STOP_DB / 10) - 1))
    k = _degree(order, k1)
    made = torch.ones_like(x) if order % 2 == 0 else x.clone()
    for i in range(1, order // 2 + 1):
        zero = _cd((2 * i - 1) / order, k)
        pole = 1 / (k * zero)
        made = made * (x.square() - zero**2) / (x.square() - pole**2) * (1 - pole**2) / (1 - zero**2)
    return made


def _landen(k: float) -> list[float]:
    """Descending Landen transformation of the modulus ``k``."""
    steps = []
    while k > 1e-15:
        k = (k / (1 + math.sqrt(1 - k * k))) ** 2
        steps.append(k)
    return steps


def _cd(u: float, k: float) -> float:
    """Jacobi's cd(u K, k)."""
    w = math.cos(u * math.pi / 2)
    for v in reversed(_landen(k)):
        w = (1 + v) * w / (1 + v * w * w)
    return w


def _sn(u: float, k: float) -> float:
    """Jacobi's sn(u K, k)."""
    return _cd(1 - u, k)


def _degree(order: int, k1: float) -> float:
    """The selectivity k for which a filter of ``order`` has the discrimination ``k1``."""
    complement = math.sqrt(1 - k1 * k1)
    product = math.prod(_sn((2 * i - 1) / order, complement) for i in range(1, order // 2 + 1))
    return math.sqrt(1 - (complement**order * product**4) ** 2)
