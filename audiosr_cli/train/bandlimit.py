"""Band-limiting of training recordings for super-resolution: filters, resamplers and codecs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from audiosr_cli.dsp.spectra import constant, irfft, raised_cosine
from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import ascending, within
from audiosr_cli.train.corpus import RandomParameters
from audiosr_cli.train.transfer import upload_all

FAMILIES = ("butterworth", "chebyshev", "elliptic", "bessel", "sinc")
ORDERS = tuple(range(2, 12))

# The entries of the random parameters that ``band_limit`` reads.
KEYS = ("cutoff", "roll_off", "resampler", "filter", "aliased", "shelf_db", "shelf_start", "low_cutoff")

# Filter magnitudes are tabulated over log2(frequency / cutoff) from -4 to 6.
_LOWEST, _POINTS_PER_OCTAVE, _POINTS = -4, 128, 1281
# dB. Lower magnitudes are raised to this.
_FLOOR_DB = -120.0
# Share of a raised-cosine roll-off, from its end, at which it is 3 dB down.
_DOWN_3_DB = 0.636
# dB. Pass-band ripple of Chebyshev and elliptic filters, and stop-band attenuation of elliptic ones.
_RIPPLE_DB, _STOP_DB = 0.5, 60.0
# The telephone band in Hz (ITU-T G.712), and over which share of its lower end a telephone's high-pass rises.
_TELEPHONE_HZ, _HIGH_PASS_WIDTH = (300.0, 3400.0), 0.5
# Roll-off of a resampler without a low-pass filter, at its Nyquist frequency.
_UNFILTERED_ROLL_OFF = 0.02


@dataclass(frozen=True)
class Degradation:
    """How recordings are band-limited.

    Low-pass filters are drawn from FAMILIES with an order from ORDERS, or imitate a resampler.

    Attributes:
        cutoff_hz: Range of the cutoff in Hz, drawn log-uniformly.
        common_cutoffs_hz: Cutoffs of common sample rates, in Hz.
        common_cutoff_prob: Probability of a cutoff from ``common_cutoffs_hz`` instead.
        resampler_prob: Probability of a resampler's low-pass: flat, then a raised cosine that ends at the cutoff.
        aliasing_prob: Probability that any other filter is followed by decimation to twice the cutoff, so that what it
            passes above the cutoff is aliased.
        shelf_prob: Probability that the octaves below the cutoff are attenuated by up to 40 dB, as by codecs.
        unfiltered_prob: Probability of decimation without any filter, as by careless resamplers: what lies up to an
            octave above the cutoff is aliased in full.
        telephone_prob: Probability of the telephone band, 300 to 3400 Hz.
        bandwidth_share: Cutoffs above this share of a recording's bandwidth are drawn again below it, as nothing can be
            learned from them; 0 keeps them.
    """

    cutoff_hz: tuple[float, float] = (1000.0, 16000.0)
    common_cutoffs_hz: tuple[float, ...] = (4000.0, 8000.0)
    common_cutoff_prob: float = 0.4
    resampler_prob: float = 0.5
    aliasing_prob: float = 0.5
    shelf_prob: float = 0.1
    unfiltered_prob: float = 0.0
    telephone_prob: float = 0.0
    bandwidth_share: float = 0.0

    def __post_init__(self) -> None:
        within(self, 0, 1, "common_cutoff_prob", "resampler_prob", "aliasing_prob", "shelf_prob")
        within(self, 0, 1, "unfiltered_prob", "telephone_prob", "bandwidth_share")
        ascending(self, "cutoff_hz")
        for name in ("cutoff_hz", "common_cutoffs_hz"):
            if min(getattr(self, name), default=1.0) <= 0:
                raise UsageError(f"{name} = {list(getattr(self, name))}: each must be above 0")


def draw(
    degradation: Degradation, count: int, generator: torch.Generator, bandwidth: Tensor | None = None
) -> RandomParameters:
    """Draw the degradation parameters of ``count`` recordings: (count,) each.

    Args:
        degradation: How to draw them.
        count: Number of recordings.
        generator: Source of the random choices.
        bandwidth: Bandwidth of each recording in Hz (count,), for ``bandwidth_share``.

    Returns:
        Every entry that ``band_limit`` reads.
    """
    d = degradation

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator)

    low, high = d.cutoff_hz
    cutoff = low * (high / low) ** uniform()
    if d.common_cutoffs_hz:
        index = torch.randint(len(d.common_cutoffs_hz), (count,), generator=generator)
        cutoff = torch.where(uniform() < d.common_cutoff_prob, torch.tensor(d.common_cutoffs_hz)[index], cutoff)
    if d.bandwidth_share and bandwidth is not None:
        most = (d.bandwidth_share * bandwidth).clamp_min(low)
        cutoff = torch.where(cutoff > most, low * (most / low) ** uniform(), cutoff)
    resampler = uniform() < d.resampler_prob
    params = {
        "cutoff": cutoff,
        "roll_off": torch.where(resampler, 0.01 + 0.12 * uniform(), 0.02),
        "resampler": resampler,
        "filter": torch.randint(len(FAMILIES) * len(ORDERS), (count,), generator=generator),
        "aliased": ~resampler & (uniform() < d.aliasing_prob),
        "shelf_db": torch.where(uniform() < d.shelf_prob, -40 * uniform(), 0),
        "shelf_start": 0.4 + 0.5 * uniform(),  # as a share of the cutoff
        "low_cutoff": torch.zeros(count),
    }
    return _with_special_cases(d, params, generator)


def _with_special_cases(d: Degradation, params: RandomParameters, generator: torch.Generator) -> RandomParameters:
    """Make some of the recordings unfiltered or telephone calls; draws nothing where neither is wanted."""
    count = len(params["cutoff"])
    if d.unfiltered_prob:
        chosen = torch.rand(count, generator=generator) < d.unfiltered_prob
        params["resampler"], params["aliased"] = params["resampler"] | chosen, params["aliased"] | chosen
        params["roll_off"] = torch.where(chosen, _UNFILTERED_ROLL_OFF, params["roll_off"])
    if d.telephone_prob:
        chosen = torch.rand(count, generator=generator) < d.telephone_prob
        params["low_cutoff"] = torch.where(chosen, _TELEPHONE_HZ[0], params["low_cutoff"])
        params["cutoff"] = torch.where(chosen, _TELEPHONE_HZ[1], params["cutoff"])
    return params


def content_bandwidth(params: RandomParameters) -> Tensor:
    """Return where each recording is 3 dB down (an elliptic filter: its ripple) in Hz: (B,). Shelves do not count."""
    return params["cutoff"] * torch.where(params["resampler"], 1 - _DOWN_3_DB * params["roll_off"], 1.0)


def band_limit(waves: Tensor, params: RandomParameters, sample_rate: int) -> Tensor:
    """Band-limit ``waves`` (B, T) with zero phase, so that nothing is delayed.

    The filters' magnitudes multiply the spectrum of the whole crop, so that its ends wrap around.

    Args:
        waves: (B, T).
        params: What ``draw`` returned for B recordings.
        sample_rate: Hz.

    Returns:
        (B, T).
    """
    r = {key: value.unsqueeze(-1) for key, value in upload_all(params, waves.device).items()}  # (B, 1)
    length = waves.shape[-1]
    spectrum = torch.fft.rfft(waves)
    frequency = torch.fft.rfftfreq(length, 1 / sample_rate, device=waves.device)  # (F,)
    relative = frequency / r["cutoff"]  # (B, F)
    table = _table(waves.device)[r["filter"].squeeze(-1)]  # (B, _POINTS)
    place = ((relative.clamp_min(2.0**_LOWEST).log2() - _LOWEST) * _POINTS_PER_OCTAVE).clamp(0, _POINTS - 1.001)
    below = place.long()
    before, after = table.gather(1, below), table.gather(1, below + 1)
    filtered = spectrum * torch.where(r["resampler"], 1.0, _gain(before + (place - below) * (after - before)))
    mirror = (2 * r["cutoff"] * length / sample_rate).long() - torch.arange(len(frequency), device=waves.device)
    has_alias = r["aliased"] & (mirror < len(frequency))
    alias = filtered.gather(1, mirror.clamp(0, len(frequency) - 1)).conj() * has_alias
    wall = torch.where(r["resampler"] | r["aliased"], raised_cosine(relative, r["roll_off"]), 1.0)
    octaves = (relative / r["shelf_start"]).clamp_min(1e-9).log2() * 4  # the shelf's slope is a quarter of an octave
    shelf = _gain(r["shelf_db"] * octaves.clamp(0, 1))
    rise = ((frequency / r["low_cutoff"].clamp_min(1e-3) - 1) / _HIGH_PASS_WIDTH + 1).clamp(0, 1)
    high_pass = torch.where(r["low_cutoff"] > 0, (1 - torch.cos(torch.pi * rise)) / 2, 1.0)
    return irfft((filtered + alias) * wall * shelf * high_pass, length)


def _gain(level_db: Tensor) -> Tensor:
    return torch.pow(10, level_db / 20)


@constant
def _table(device: torch.device) -> Tensor:
    """Tabulate every family and order over the grid in dB: (families * orders, _POINTS) float32."""
    x = torch.pow(2.0, torch.arange(_POINTS, dtype=torch.float64) / _POINTS_PER_OCTAVE + _LOWEST)
    rows = [magnitude_db(family, order, x) for family in FAMILIES for order in ORDERS]
    return torch.stack(rows).float().clamp_min(_FLOOR_DB).to(device)


def magnitude_db(family: str, order: int, x: Tensor) -> Tensor:
    """Compute the magnitude response of an analogue low-pass filter in dB, from the textbook formulas.

    The cutoff is where Butterworth and Bessel filters are 3 dB down, where Chebyshev (type I) and elliptic ones leave
    their ripple of 0.5 dB, and where a sinc ends. The stop band of elliptic ones is 60 dB down.

    Args:
        family: One of FAMILIES.
        order: Order of the filter.
        x: Frequency divided by the cutoff, float64.

    Returns:
        dB, in the shape of ``x``.
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
    """Evaluate the Chebyshev polynomial of the first kind."""
    inside = torch.cos(order * torch.acos(x.clamp_max(1)))
    return torch.where(x <= 1, inside, torch.cosh(order * torch.acosh(x.clamp_min(1))))


def _bessel_db(order: int, x: Tensor) -> Tensor:
    """Evaluate the reverse Bessel polynomial's filter, scaled in frequency so that it is 3 dB down at 1."""
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
    """Evaluate the elliptic rational function R_n(x) whose stop band is 60 dB down.

    Its selectivity k follows from the degree equation; zeros are at cd((2i - 1) K / n), poles at 1 / (k * zero)
    (Orfanidis, Lecture Notes on Elliptic Filter Design, 2006; functions by Landen's transformation).
    """
    k1 = math.sqrt(ripple / (10 ** (_STOP_DB / 10) - 1))
    k = _degree(order, k1)
    value = torch.ones_like(x) if order % 2 == 0 else x.clone()
    for i in range(1, order // 2 + 1):
        zero = _cd((2 * i - 1) / order, k)
        pole = 1 / (k * zero)
        value = value * (x.square() - zero**2) / (x.square() - pole**2) * (1 - pole**2) / (1 - zero**2)
    return value


def _landen(k: float) -> list[float]:
    """Return the descending Landen transformation of the modulus ``k``."""
    steps = []
    while k > 1e-15:
        k = (k / (1 + math.sqrt(1 - k * k))) ** 2
        steps.append(k)
    return steps


def _cd(u: float, k: float) -> float:
    """Evaluate Jacobi's cd(u K, k)."""
    w = math.cos(u * math.pi / 2)
    for v in reversed(_landen(k)):
        w = (1 + v) * w / (1 + v * w * w)
    return w


def _sn(u: float, k: float) -> float:
    """Evaluate Jacobi's sn(u K, k)."""
    return _cd(1 - u, k)


def _degree(order: int, k1: float) -> float:
    """Solve the degree equation: the selectivity k of a filter of ``order`` with the discrimination ``k1``."""
    complement = math.sqrt(1 - k1 * k1)
    product = math.prod(_sn((2 * i - 1) / order, complement) for i in range(1, order // 2 + 1))
    return math.sqrt(1 - (complement**order * product**4) ** 2)
