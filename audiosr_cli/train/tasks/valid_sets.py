"""Fixed sets of mixtures of the validation speakers, the same for every run and model.

All random choices come from fixed seeds and are relative to the length of recordings. So corpora of the same files at
two sample rates give the same speakers, positions in recordings (to a sample of the lower rate), turns and rooms. Only
levels and SNRs differ, as they are those of the bandwidth at that rate. ``render_set`` with a ``rate`` renders at the
corpus's rate and resamples: then a model at 8 kHz gets exactly the mixtures of one at 16 kHz, band-limited to 4 kHz.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.dsp.metrics import si_sdr
from audiosr_cli.dsp.spectra import change_rate
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train import mixing
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.losses import pit
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.reverb import impulse_responses
from audiosr_cli.train.tasks.base import VALID_SEED

# Length of a mixture in seconds.
CLIP_S = 5.12
# Mixtures separated at once.
_BATCH_SIZE = 4
# Sample rate in Hz at which the validation rooms are simulated; for other rates they are resampled.
_ROOMS_RATE = 48000
# Samples of padding (10 ms) for the resampler's ringing before the direct path.
_PADDING = 480


@dataclass(frozen=True)
class ValidSet:
    """A set of ``count`` mixtures drawn with ``seed``; at -20 dBFS, without speed perturbation."""

    count: int
    seed: int
    mixing: Mixing


def _set(number: int, count: int, **values: float | tuple[float, float]) -> ValidSet:
    return ValidSet(count, VALID_SEED + number, Mixing(speed_perturbation=0.0, level_db=(-20.0, -20.0), **values))  # type: ignore[arg-type]


# Plain mixtures are fully overlapped, ± 2.5 dB. Turns overlap as in training, from pauses to nearly full overlap, but
# are shifted less: each speaker is active for at least 1.5 s of the clip, as SI-SDR is undefined for a silent one.
SETS = {
    "plain": _set(0, 40),
    "turns": _set(1, 24, turns_prob=1.0, overlap=(-0.3, 0.9), turn_shift=0.3),
    "noise": _set(2, 24, noise_prob=1.0, snr_db=(5.0, 20.0)),
    "rooms": _set(3, 24, reverb_prob=1.0),
    "loud noise": _set(4, 24, noise_prob=1.0, snr_db=(0.0, 0.0)),
}


def clip_length(spec: ModelSpec) -> int:
    """Return the samples of a clip at the model's rate: 5.12 s, or whole windows for a model without context."""
    length = round(CLIP_S * spec.in_rate)
    return length if spec.context else max(length // spec.core, 1) * spec.core


def render_set(
    name: str,
    valid: Corpus,
    sources: int,
    length: int,
    device: torch.device,
    noise: Corpus | None = None,
    rate: int | None = None,
    reflections_s: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Render the set ``name`` of SETS.

    Args:
        name: plain, turns, noise, rooms or loud noise.
        valid: Validation speakers, at any rate.
        sources: Speakers of a mixture.
        length: Samples of a clip at the rate of ``valid``.
        device: Where to render.
        noise: Noise at the rate of ``valid``, for the sets with noise.
        rate: Sample rate of the result in Hz; None for that of ``valid``.
        reflections_s: As for ``mixing.render``.

    Returns:
        Mixtures (B, T) and sources (B, S, T). In a room the sources are reverberant; noise belongs to no source.
    """
    chosen, generator = SETS[name], torch.Generator().manual_seed(SETS[name].seed)
    noise = noise if chosen.mixing.noise_prob else None
    rirs = _rirs(chosen.count, sources, valid.sample_rate) if chosen.mixing.reverb_prob else None
    params = mixing.draw(chosen.mixing, valid, sources, chosen.count, length, generator, noise, rirs)
    mix, references = mixing.render(params, valid, length, device, noise, rirs, reflections_s)
    if rate is None or rate == valid.sample_rate:
        return mix, references
    return change_rate(mix, valid.sample_rate, rate), change_rate(references, valid.sample_rate, rate)


@lru_cache(maxsize=4)
def _rirs(count: int, positions: int, sample_rate: int) -> Tensor:
    """Simulate rooms that training does not use, the same ones at every rate: (rooms, positions, T)."""
    generator = torch.Generator().manual_seed(SETS["rooms"].seed)
    responses = impulse_responses(count, positions, _ROOMS_RATE, generator)
    length = round(responses.shape[-1] * sample_rate / _ROOMS_RATE)
    padded = F.pad(responses, (0, _PADDING))  # ringing before the direct path wraps around into the padding
    resampled = change_rate(padded, _ROOMS_RATE, sample_rate)[..., :length]
    return resampled / resampled.norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]


def separate_mixtures(model: Model, mix: Tensor) -> Tensor:
    """Separate mixtures, padded to whole windows for a model without context.

    Args:
        model: A separator.
        mix: (B, T) at the model's rate, on its device.

    Returns:
        Estimates (B, S, T).
    """
    spec, length = model.spec, mix.shape[-1]
    padding = 0 if spec.context else -length % spec.core
    sides = (spec.context, spec.context + padding)
    with torch.no_grad():
        estimates = [model(F.pad(mixes.unsqueeze(1), sides)) for mixes in torch.split(mix, _BATCH_SIZE)]
    return torch.cat(estimates).flatten(2)[..., :length]


def si_sdr_improvement(estimates: Tensor, mix: Tensor, sources: Tensor) -> float:
    """Compute the mean SI-SDR improvement over whole clips, for the best permutation of the sources.

    Args:
        estimates: (B, S, T).
        mix: (B, T).
        sources: The references (B, S, T).

    Returns:
        The improvement in dB.
    """
    before = si_sdr(mix.unsqueeze(1), sources).mean()
    return float(-pit(estimates, sources, si_sdr, best_db=100.0) - before)


def set_improvement(name: str, model: Model, valid: Corpus, noise: Corpus | None = None) -> float:
    """Score ``model`` on one of the fixed sets.

    Args:
        name: plain, turns, noise or rooms.
        model: A separator.
        valid: Validation speakers, at the model's rate.
        noise: Noise at that rate, for the set of that name.

    Returns:
        The mean SI-SDR improvement in dB.
    """
    spec, device = model.spec, next(model.parameters()).device
    mix, sources = render_set(name, valid, spec.sources, clip_length(spec), device, noise)
    return si_sdr_improvement(separate_mixtures(model, mix), mix, sources)
