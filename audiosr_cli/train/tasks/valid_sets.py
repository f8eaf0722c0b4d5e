"""Fixed sets of mixtures of the valid speakers, the same for every run and model.

All choices are drawn from fixed seeds as shares of what there is, so corpora of the same files at two rates give the
same speakers, the same places in their recordings (to a sample of the lower rate), the same turns and rooms. What
differs: levels and SNRs are those of the band that the rate has. ``render_set`` with a ``rate`` renders at the corpus's
rate and resamples: then a model at 8 kHz hears exactly what one at 16 kHz does, less what lies above 4 kHz.
"""

from __future__ import annotations

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

CLIP_S = 5.12
_AT_ONCE = 4  # clips
_ROOMS_RATE = 48000  # of the valid rooms, from which every other rate is made
_BEFORE = 480  # samples, 10 ms: where the ringing of that before the direct path goes


@dataclass(frozen=True)
class ValidSet:
    """``count`` mixtures as ``mixing`` has them, drawn from ``seed``; no speed changes, each at -20 dBFS."""

    count: int
    seed: int
    mixing: Mixing


def _set(number: int, count: int, **values: float | tuple[float, float]) -> ValidSet:
    return ValidSet(count, VALID_SEED + number, Mixing(speed=0.0, level_db=(-20.0, -20.0), **values))  # type: ignore[arg-type]


# Plain mixtures are fully overlapped, ± 2.5 dB. Turns overlap as in training, from pauses to nearly all at once, but
# move less: either speaker has 1.5 s or more of the clip, as SI-SDR means nothing for one who is silent.
SETS = {
    "plain": _set(0, 40),
    "turns": _set(1, 24, turns=1.0, overlap=(-0.3, 0.9), shift=0.3),
    "noise": _set(2, 24, noisy=1.0, snr_db=(5.0, 20.0)),
    "rooms": _set(3, 24, reverberation=1.0),
}


def clip_length(spec: ModelSpec) -> int:
    """Return the samples of a clip at the model's rate: 5.12 s, or the whole windows in it without context."""
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
) -> tuple[Tensor, Tensor]:
    """Render the set ``name`` of SETS.

    Args:
        name: plain, turns, noise or rooms.
        valid: Speakers, at any rate.
        sources: Speakers of a mixture.
        length: Samples of a clip at the rate of ``valid``.
        device: Where to render.
        noise: Noise at the rate of ``valid``, for the set of that name.
        rate: Hz of what is returned; that of ``valid`` where None.

    Returns:
        Mixtures (B, T) and sources (B, S, T). In a room the sources are reverberant; noise belongs to no source.

    """
    chosen, generator = SETS[name], torch.Generator().manual_seed(SETS[name].seed)
    noise = noise if chosen.mixing.noisy else None
    rooms = _rooms(chosen.count, sources, valid.sample_rate) if chosen.mixing.reverberation else None
    recipe = mixing.draw(chosen.mixing, valid, sources, chosen.count, length, generator, noise, rooms)
    mix, parts = mixing.render(recipe, valid, length, device, noise, rooms)
    if rate is None or rate == valid.sample_rate:
        return mix, parts
    return change_rate(mix, valid.sample_rate, rate), change_rate(parts, valid.sample_rate, rate)


@lru_cache(maxsize=4)
def _rooms(count: int, positions: int, sample_rate: int) -> Tensor:
    """Synthetic rooms that no training has, the same ones at every rate: (rooms, positions, T)."""
    generator = torch.Generator().manual_seed(SETS["rooms"].seed)
    responses = impulse_responses(count, positions, _ROOMS_RATE, generator)
    length = round(responses.shape[-1] * sample_rate / _ROOMS_RATE)
    padded = F.pad(responses, (0, _BEFORE))  # ringing before the direct path wraps around to there, and is cut off
    resampled = change_rate(padded, _ROOMS_RATE, sample_rate)[..., :length]
    return resampled / resampled.norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]


def separated(model: Model, mix: Tensor) -> Tensor:
    """Separate mixtures; a model without context gets whole windows.

    Args:
        model: A separator.
        mix: (B, T) at its rate, on its device.

    Returns:
        Estimates (B, S, T).
    """
    spec, length = model.spec, mix.shape[-1]
    behind = 0 if spec.context else -length % spec.core
    sides = (spec.context, spec.context + behind)
    with torch.no_grad():
        estimates = [model(F.pad(part.unsqueeze(1), sides)) for part in torch.split(mix, _AT_ONCE)]
    return torch.cat(estimates).flatten(2)[..., :length]


def improvement(estimates: Tensor, mix: Tensor, sources: Tensor) -> float:
    """Compute the mean SI-SDR improvement over whole clips, in the best order of the sources.

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
        valid: Speakers, at the model's rate.
        noise: Noise at that rate, for the set of that name.

    Returns:
        The mean SI-SDR improvement in dB.
    """
    spec, device = model.spec, next(model.parameters()).device
    mix, sources = render_set(name, valid, spec.sources, clip_length(spec), device, noise)
    return improvement(separated(model, mix), mix, sources)
