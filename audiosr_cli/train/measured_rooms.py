"""Measured impulse responses of real rooms, and the pool of rooms that mixtures are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.audio.read import read_channels
from audiosr_cli.errors import InputError, TrainingError, UsageError
from audiosr_cli.train.data import audio_files
from audiosr_cli.train.reverb import impulse_responses

_ROOMS, _POSITIONS, _SEED = 128, 4, 20261120  # of the pool

# A response starts where it first comes within 20 dB of its maximum (ISO 3382-1), so that noise before does not count.
_ONSET = 0.1
# What arrives up to 2.5 ms later is the direct sound, as in the usual direct-to-reverberant ratio; the cut is faded.
_DIRECT_S, _CUT_S = 0.0025, 0.0015
# Speakers near the microphone of an office (12 dB) and far away in a hall (-6 dB). Halls are often measured from the
# stage, at down to -20 dB, where nobody would record a conversation.
_DIRECT_TO_REVERBERANT_DB = (-6.0, 12.0)
# The paths of two speakers differ: 5 % are 2.5 ms at 50 ms, half a period of 200 Hz. In a reverberation time nobody
# hears them.
_STRETCH = 0.05
# Of a reverberation time of 2.5 s this leaves out what is 27 dB below the whole. The last tenth fades.
_LENGTH_S, _FADE_S = 1.0, 0.1


@dataclass(frozen=True, eq=False)
class MeasuredRooms:
    """Impulse responses at one rate: a tensor (C, T) for each room, the direct path of every channel at sample 0."""

    sample_rate: int
    responses: tuple[Tensor, ...]


def load_rooms(folders: Sequence[Path], sample_rate: int) -> MeasuredRooms:
    """Read every audio file under ``folders`` as a room; its channels are responses from different places.

    Args:
        folders: Where the impulse responses are, at any depth.
        sample_rate: Hz of the result.

    Returns:
        A room for each file.

    Raises:
        TrainingError: If there is no file, or one cannot be read, has a silent channel or holds NaN.
    """
    paths = [path for folder in folders for path in audio_files(folder)]
    if not paths:
        raise TrainingError(f"[data] rir: no audio files under {', '.join(map(str, folders))}")
    return MeasuredRooms(sample_rate, tuple(_read(path, sample_rate) for path in paths))


def _read(path: Path, sample_rate: int) -> Tensor:
    try:
        waves = torch.from_numpy(read_channels(path, sample_rate))
    except InputError as error:
        raise TrainingError(f"[data] rir: {error}") from error
    if not torch.isfinite(waves).all() or not waves.any(-1).all():
        raise TrainingError(f"{path}: a channel is silent or not finite; take the file out of the folder")
    return align(waves)


def align(responses: Tensor) -> Tensor:
    """Shift each response (C, T) so that its direct path is at sample 0; the ends fill with zeros."""
    level = responses.abs()
    onset = (level >= _ONSET * level.amax(-1, keepdim=True)).float().argmax(-1, keepdim=True)  # (C, 1)
    index = torch.arange(responses.shape[-1]) + onset
    inside = index < responses.shape[-1]
    return responses.gather(-1, index.clamp_max(responses.shape[-1] - 1)) * inside


def place_speakers(rooms: MeasuredRooms, count: int, positions: int, generator: torch.Generator) -> Tensor:
    """Make ``count`` rooms with speakers at ``positions`` places out of the measured ones: (count, positions, T).

    A file says how a room sounds from one place, or from one for each of its channels; two speakers need two. So every
    position takes the next channel, scales its direct sound to a random direct-to-reverberant ratio (how near the
    speaker is) and stretches the rest by up to 5 % (other paths, the same character). What both speakers share is
    the colour of the measuring loudspeaker and microphone.

    Args:
        rooms: The measured rooms, which are taken in turn from a random one on.
        count: How many rooms to make.
        positions: Speakers in each.
        generator: Of the random choices.

    Returns:
        (count, positions, T): responses of 1 s and of unit energy.
    """
    length = round(_LENGTH_S * rooms.sample_rate)
    fade = torch.cos(torch.linspace(0, torch.pi / 2, round(_FADE_S * rooms.sample_rate))).square()
    first = int(torch.randint(len(rooms.responses), (1,), generator=generator))
    placed = torch.zeros(count, positions, length)
    for room in range(count):
        channels = rooms.responses[(first + room) % len(rooms.responses)]
        for position in range(positions):
            response = _another_place(channels[position % len(channels)], rooms.sample_rate, generator)[:length]
            placed[room, position, : len(response)] = response
    placed[..., -len(fade) :] *= fade
    return placed / placed.norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]


def _another_place(response: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """``response`` (T,) with a random direct-to-reverberant ratio, and reflections at up to 5 % other times."""
    ratio, stretch = torch.rand(2, generator=generator).tolist()
    low, high = _DIRECT_TO_REVERBERANT_DB
    time = torch.arange(len(response)) / sample_rate
    window = (1 + torch.cos(torch.pi * ((time - _DIRECT_S) / _CUT_S).clamp(0, 1))) / 2
    direct, rest = response * window, response * (1 - window)
    stretched = max(2, round(len(rest) * (1 + _STRETCH * (2 * stretch - 1))))
    rest = torch.fft.irfft(torch.fft.rfft(rest)[: stretched // 2 + 1], stretched) * (stretched / len(rest))
    energy = float(rest.square().sum()) / float(direct.square().sum())
    if energy < 1e-6:  # nothing but a direct sound: an anechoic room
        return direct
    gain = math.sqrt(energy) * 10 ** ((low + (high - low) * ratio) / 20)
    longest = max(len(direct), stretched)
    placed: Tensor = gain * F.pad(direct, (0, longest - len(direct))) + F.pad(rest, (0, longest - stretched))
    return placed


@lru_cache(maxsize=2)
def room_pool(sources: int, sample_rate: int, real_share: float = 0.0, measured: MeasuredRooms | None = None) -> Tensor:
    """Build the 128 rooms that mixtures are drawn from, each as likely; the same at every call.

    Args:
        sources: Speakers of a mixture.
        sample_rate: Hz.
        real_share: The share of measured rooms, from 0 to 1; the others are synthetic.
        measured: The measured rooms at ``sample_rate``.

    Returns:
        (rooms, positions, T), at least as many positions as ``sources``.

    Raises:
        UsageError: If there are to be measured rooms and ``measured`` is None.
    """
    if real_share and measured is None:
        raise UsageError(f"[task.mixing] real_rooms = {real_share}: [data] rir names no folder")
    generator = torch.Generator().manual_seed(_SEED)
    positions, real = max(_POSITIONS, sources), round(_ROOMS * real_share)
    pools = []
    if real < _ROOMS:
        pools.append(impulse_responses(_ROOMS - real, positions, sample_rate, generator))
    if real and measured is not None:
        pools.append(place_speakers(measured, real, positions, generator))
    longest = max(pool.shape[-1] for pool in pools)
    return torch.cat([F.pad(pool, (0, longest - pool.shape[-1])) for pool in pools])
