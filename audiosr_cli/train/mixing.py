"""Dynamic mixing: every batch is a new set of mixtures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import ascending, within
from audiosr_cli.train.corpus import Corpus, Recipe
from audiosr_cli.train.reverb import reverberate
from audiosr_cli.train.transfer import upload, upload_all

_RAMP_S = 0.01  # how fast a turn starts and ends
_SHORTEST = 0.3  # of a crop, that is the least there is to hear


@dataclass(frozen=True)
class Mixing:
    """What mixtures are like.

    Every source has a level within ± ``spread_db`` / 2 of a common one, a random polarity, and a speed within
    1 ± ``speed``; the mixture's RMS over the crop lies within ``level_db`` (dBFS). With the chance ``turns``
    speakers take turns of equal length in random order; ``overlap`` bounds the share of a turn that the next
    one overlaps: 1 is both at once all the time, below 0 they pause in between. ``shift`` moves the turns by up to that
    share of one, so that who is first or last has more of the crop than the others. With the chance ``short`` the
    crop is silent but for a piece of 30 % of it or more, as windows are at a recording's ends. With the chance
    ``absent`` a source is silent for the whole crop (never all of them). With the chance ``reverberation`` all stand
    in one room, which for a share ``real_rooms`` of those is a measured one (see measured_rooms.py); with the chance
    ``noisy`` noise is added at an SNR within ``snr_db``.
    """

    spread_db: float = 5.0
    speed: float = 0.05
    level_db: tuple[float, float] = (-40.0, -6.0)
    turns: float = 0.0
    overlap: tuple[float, float] = (-0.3, 1.0)
    shift: float = 0.0
    short: float = 0.0
    absent: float = 0.0
    reverberation: float = 0.0
    real_rooms: float = 0.0
    noisy: float = 0.0
    snr_db: tuple[float, float] = (0.0, 25.0)

    def __post_init__(self) -> None:
        within(self, 0, 1, "turns", "shift", "short", "absent", "reverberation", "real_rooms", "noisy")
        within(self, 0, 0.5, "speed")
        within(self, 0, 120, "spread_db")
        ascending(self, "level_db", "overlap", "snr_db")
        if self.overlap[1] > 1:
            raise UsageError(f"overlap = {list(self.overlap)}: 1 is both at once, more there cannot be")


def draw(
    mixing: Mixing,
    corpus: Corpus,
    sources: int,
    count: int,
    length: int,
    generator: torch.Generator,
    noise: Corpus | None = None,
    rooms: Tensor | None = None,
    who: Tensor | None = None,
) -> Recipe:
    """The random choices of ``count`` mixtures of ``sources`` speakers, ``length`` samples each.

    ``who`` (count, sources): the speakers, where they are chosen already.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    def between(limits: tuple[float, float], *shape: int) -> Tensor:
        return limits[0] + (limits[1] - limits[0]) * uniform(*shape)

    recipe = corpus.draw(count, length, generator, sources, mixing.speed, who)
    recipe["gain_db"] = (uniform(sources) - 0.5) * mixing.spread_db
    recipe["sign"] = (uniform(sources) < 0.5) * 2.0 - 1
    recipe["joint_db"] = between(mixing.level_db)
    recipe["begin"], recipe["end"], place = _turns(mixing, sources, count, length, generator)
    heard = uniform(sources) >= mixing.absent
    heard[torch.arange(count), place.argmin(1)] = True
    recipe["heard"] = heard
    if rooms is not None:
        recipe["room"] = torch.where(uniform() < mixing.reverberation, (uniform() * len(rooms)).long(), -1)
        recipe["position"] = torch.rand(count, rooms.shape[1], generator=generator).argsort(1)[:, :sources]
    if noise is not None:
        snr = between(mixing.snr_db)
        recipe["snr_db"] = torch.where(uniform() < mixing.noisy, snr, float("inf"))
        recipe |= {f"noise_{key}": value for key, value in noise.draw(count, length, generator).items()}
    return recipe


def fully_overlapped(recipe: Recipe, length: int) -> Tensor:
    """Which mixtures have all speakers at once from the first to the last of ``length`` samples: (B,) bool."""
    always = (recipe["begin"] <= 0) & (recipe["end"] >= length)
    return (always & recipe["heard"]).all(1)


def _turns(
    mixing: Mixing, sources: int, count: int, length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """From where to where each source may be heard, in samples, and its place in the row: (B, S) each."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    place = uniform(sources).argsort(1)  # whose turn is which
    overlap = mixing.overlap[0] + (mixing.overlap[1] - mixing.overlap[0]) * uniform(1)
    turn = length / (1 + (sources - 1) * (1 - overlap))
    begin = (place * (1 - overlap) + mixing.shift * (2 * uniform(1) - 1)) * turn
    always = uniform(1) >= mixing.turns
    short, share, rest = uniform(3, 1).unbind(1)  # (B, 1) each
    share = _SHORTEST + (1 - _SHORTEST) * share
    whole = short >= mixing.short
    first = torch.where(whole, -length, rest * (1 - share) * length)
    last = torch.where(whole, 2 * length, (rest * (1 - share) + share) * length)
    return (
        torch.where(always | (place == 0), -length, begin).maximum(first),
        torch.where(always | (place == sources - 1), 2 * length, begin + turn).minimum(last),
        place,
    )


def render(
    recipe: Recipe,
    corpus: Corpus,
    length: int,
    device: torch.device,
    noise: Corpus | None = None,
    rooms: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mixtures (B, T) and their sources (B, S, T) on ``device``; without noise the one is the sum of the other.

    A source that does not speak in the crop is exactly zero. Levels are relative to the recording's RMS, not
    the crop's, so that a pause stays a pause.
    """
    waves = corpus.render(recipe, length, device)
    time = torch.arange(length, device=device)
    gain = torch.pow(10, recipe["gain_db"] / 20) * recipe["sign"] / corpus.level[recipe["recording"]]
    own = upload_all({key: recipe[key] for key in ("begin", "end", "heard", "joint_db")} | {"gain": gain}, device)
    begin, end, heard = (own[key].unsqueeze(-1) for key in ("begin", "end", "heard"))
    ramp = _RAMP_S * corpus.sample_rate
    waves = waves * (((time - begin) / ramp).clamp(0, 1) * ((end - time) / ramp).clamp(0, 1) * heard)
    if rooms is not None and len(inside := (recipe["room"] >= 0).nonzero()[:, 0]):
        responses = rooms[recipe["room"][inside, None], recipe["position"][inside]]  # (b, S, T')
        inside = upload(inside, device)
        waves[inside] = reverberate(waves[inside], upload(responses, device))
    waves = waves * own["gain"].unsqueeze(-1)
    mix = waves.sum(1)  # (B, T)
    if noise is not None:
        added = noise.render({key: recipe[f"noise_{key}"] for key in ("recording", "first", "rate")}, length, device)
        level = upload(torch.pow(10, -recipe["snr_db"] / 20), device)  # (B,)
        mix = mix + added[:, 0] * (level * _rms(mix) / _rms(added[:, 0])).unsqueeze(-1)
    joint = (torch.pow(10, own["joint_db"] / 20) / _rms(mix)).unsqueeze(-1)  # (B, 1)
    return mix * joint, waves * joint.unsqueeze(-1)


def _rms(waves: Tensor) -> Tensor:
    return waves.square().mean(-1).sqrt().clamp_min(1e-4)
