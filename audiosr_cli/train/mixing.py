"""Dynamic mixing: every batch is a new set of mixtures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import ascending, within
from audiosr_cli.train.corpus import Corpus, RandomParameters
from audiosr_cli.train.reverb import reverberate
from audiosr_cli.train.transfer import upload, upload_all

# Seconds of the fade at the start and end of a turn.
_RAMP_S = 0.01
# Share of a padded crop that has sound, at least.
_MIN_PADDED_SHARE = 0.3


@dataclass(frozen=True)
class Mixing:
    """How mixtures are drawn.

    Every source has a random polarity.

    Attributes:
        level_spread_db: Levels of the sources differ by up to this many dB.
        speed_perturbation: Speed and pitch of each source are multiplied by a factor within 1 ± this.
        level_db: Range of the mixture's RMS over the crop, in dBFS.
        turns_prob: Probability that speakers take turns of equal length in random order.
        overlap: Range of the share of a turn that the next one overlaps: 1 is fully overlapped, below 0 is a pause.
        turn_shift: Shift all turns by up to this share of a turn, so that the first or the last one is longer.
        padded_prob: Probability that the crop is silent except for a piece of at least 30 % of it, as windows at the
            start and end of a recording are.
        silent_source_prob: Probability that a source is silent for the whole crop; never all sources.
        reverb_prob: Probability that all speakers of a mixture are in the same room.
        measured_rir_share: Share of measured impulse responses among these rooms; the others are synthetic.
        noise_prob: Probability of added noise.
        snr_db: Range of the signal-to-noise ratio of that noise, in dB.
    """

    level_spread_db: float = 5.0
    speed_perturbation: float = 0.05
    level_db: tuple[float, float] = (-40.0, -6.0)
    turns_prob: float = 0.0
    overlap: tuple[float, float] = (-0.3, 1.0)
    turn_shift: float = 0.0
    padded_prob: float = 0.0
    silent_source_prob: float = 0.0
    reverb_prob: float = 0.0
    measured_rir_share: float = 0.0
    noise_prob: float = 0.0
    snr_db: tuple[float, float] = (0.0, 25.0)

    def __post_init__(self) -> None:
        within(self, 0, 1, "turns_prob", "padded_prob", "silent_source_prob", "reverb_prob", "noise_prob")
        within(self, 0, 1, "turn_shift", "measured_rir_share")
        within(self, 0, 0.5, "speed_perturbation")
        within(self, 0, 120, "level_spread_db")
        ascending(self, "level_db", "overlap", "snr_db")
        if self.overlap[1] > 1:
            raise UsageError(f"overlap = {list(self.overlap)}: must not exceed 1, which is fully overlapped")


def draw(
    mixing: Mixing,
    corpus: Corpus,
    sources: int,
    count: int,
    length: int,
    generator: torch.Generator,
    noise: Corpus | None = None,
    rirs: Tensor | None = None,
    speakers: Tensor | None = None,
) -> RandomParameters:
    """Draw the random parameters of ``count`` mixtures.

    Args:
        mixing: How to draw them.
        corpus: The speakers' recordings.
        sources: Speakers of a mixture.
        count: Number of mixtures.
        length: Samples of a mixture.
        generator: Source of the random choices.
        noise: Recordings of noise, if any.
        rirs: Impulse responses (rooms, positions, T), if any.
        speakers: Speakers' indices (count, sources) where they are chosen already.

    Returns:
        One row for each mixture in every entry.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    def between(limits: tuple[float, float], *shape: int) -> Tensor:
        return limits[0] + (limits[1] - limits[0]) * uniform(*shape)

    params = corpus.draw(count, length, generator, sources, mixing.speed_perturbation, speakers)
    params["gain_db"] = (uniform(sources) - 0.5) * mixing.level_spread_db
    params["sign"] = (uniform(sources) < 0.5) * 2.0 - 1
    params["mixture_db"] = between(mixing.level_db)
    params["begin"], params["end"], order = _turns(mixing, sources, count, length, generator)
    active = uniform(sources) >= mixing.silent_source_prob
    active[torch.arange(count), order.argmin(1)] = True
    params["active"] = active
    if rirs is not None:
        params["room"] = torch.where(uniform() < mixing.reverb_prob, (uniform() * len(rirs)).long(), -1)
        params["position"] = torch.rand(count, rirs.shape[1], generator=generator).argsort(1)[:, :sources]
    if noise is not None:
        snr = between(mixing.snr_db)
        params["snr_db"] = torch.where(uniform() < mixing.noise_prob, snr, float("inf"))
        params |= {f"noise_{key}": value for key, value in noise.draw(count, length, generator).items()}
    return params


def fully_overlapped(params: RandomParameters, length: int) -> Tensor:
    """Return which mixtures have all speakers active for all of their ``length`` samples: (B,) bool."""
    always = (params["begin"] <= 0) & (params["end"] >= length)
    return (always & params["active"]).all(1)


def _turns(
    mixing: Mixing, sources: int, count: int, length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return start and end of each source's turn in samples, and its number in the order of turns: (B, S) each."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    order = uniform(sources).argsort(1)
    overlap = mixing.overlap[0] + (mixing.overlap[1] - mixing.overlap[0]) * uniform(1)
    turn = length / (1 + (sources - 1) * (1 - overlap))
    begin = (order * (1 - overlap) + mixing.turn_shift * (2 * uniform(1) - 1)) * turn
    always = uniform(1) >= mixing.turns_prob
    padded, share, rest = uniform(3, 1).unbind(1)  # (B, 1) each
    share = _MIN_PADDED_SHARE + (1 - _MIN_PADDED_SHARE) * share
    unpadded = padded >= mixing.padded_prob
    first = torch.where(unpadded, -length, rest * (1 - share) * length)
    last = torch.where(unpadded, 2 * length, (rest * (1 - share) + share) * length)
    return (
        torch.where(always | (order == 0), -length, begin).maximum(first),
        torch.where(always | (order == sources - 1), 2 * length, begin + turn).minimum(last),
        order,
    )


def render(
    params: RandomParameters,
    corpus: Corpus,
    length: int,
    device: torch.device,
    noise: Corpus | None = None,
    rirs: Tensor | None = None,
    reflections_s: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Render mixtures and their sources on ``device``; without noise a mixture is the sum of its sources.

    A source that is silent in the crop is exactly zero. Levels are relative to the RMS of the recording, not of the
    crop, so that a pause stays a pause.

    Args:
        params: What ``draw`` returned, or some of its rows.
        corpus: The speakers' recordings.
        length: Samples of a mixture.
        device: Where to render.
        noise: As for ``draw``.
        rirs: As for ``draw``.
        reflections_s: The sources hold what arrives up to this many seconds after the direct sound, the mixtures
            all of it.

    Returns:
        Mixtures (B, T) and sources (B, S, T).
    """
    waves = corpus.render(params, length, device)
    time = torch.arange(length, device=device)
    gain = torch.pow(10, params["gain_db"] / 20) * params["sign"] / corpus.level[params["recording"]]
    own = upload_all({key: params[key] for key in ("begin", "end", "active", "mixture_db")} | {"gain": gain}, device)
    begin, end, active = (own[key].unsqueeze(-1) for key in ("begin", "end", "active"))
    ramp = _RAMP_S * corpus.sample_rate
    waves = waves * (((time - begin) / ramp).clamp(0, 1) * ((end - time) / ramp).clamp(0, 1) * active)
    at_microphone = waves
    if rirs is not None and (params["room"] >= 0).any():
        at_microphone, waves = _in_rooms(waves, params, rirs, reflections_s * corpus.sample_rate)
    gain = own["gain"].unsqueeze(-1)
    mix, waves = (at_microphone * gain).sum(1), waves * gain  # (B, T), (B, S, T)
    if noise is not None:
        added = noise.render({key: params[f"noise_{key}"] for key in ("recording", "first", "rate")}, length, device)
        level = upload(torch.pow(10, -params["snr_db"] / 20), device)  # (B,)
        mix = mix + added[:, 0] * (level * _rms(mix) / _rms(added[:, 0])).unsqueeze(-1)
    scale = (torch.pow(10, own["mixture_db"] / 20) / _rms(mix)).unsqueeze(-1)  # (B, 1)
    return mix * scale, waves * scale.unsqueeze(-1)


def _in_rooms(waves: Tensor, params: RandomParameters, rirs: Tensor, reflections: float) -> tuple[Tensor, Tensor]:
    """Return ``waves`` (B, S, T) in their rooms, and the same with reflections up to so many samples only."""
    reverberant = (params["room"] >= 0).nonzero()[:, 0]
    responses = rirs[params["room"][reverberant, None], params["position"][reverberant]]  # (b, S, T')
    reverberant, responses = upload(reverberant, waves.device), upload(responses, waves.device)
    full, early = waves.clone(), waves.clone()
    full[reverberant] = reverberate(waves[reverberant], responses)
    if reflections >= responses.shape[-1]:
        return full, full
    early[reverberant] = reverberate(waves[reverberant], responses[..., : round(reflections) + 1])
    return full, early


def _rms(waves: Tensor) -> Tensor:
    return waves.square().mean(-1).sqrt().clamp_min(1e-4)
