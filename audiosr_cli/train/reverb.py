"""Reverberation: synthetic and measured room impulse responses (RIRs), and the pool that mixtures draw from."""

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

_SPEED_OF_SOUND = 343.0  # m/s
# Seconds of single reflections (image sources); decaying noise follows.
_EARLY_S = 0.05
# Images are computed for this many room lengths in each direction.
_IMAGE_ORDER = 4

# The pool: rooms, speaker positions in each (at least), and the seed.
_ROOMS, _POSITIONS, _SEED = 128, 4, 20261120

# Share of the maximum. A response starts where it first comes within 20 dB of its maximum (ISO 3382-1), so that noise
# before the direct path is not taken for it.
_ONSET = 0.1
# Seconds. What arrives within 2.5 ms counts as direct sound, as usual for the direct-to-reverberant ratio; the second
# value is the length of the fade at the cut.
_DIRECT_S, _CUT_S = 0.0025, 0.0015
# From a speaker far away in a hall (-6 dB) to one near the microphone in an office (12 dB). Halls are often measured
# from the stage, at ratios down to -20 dB, at which conversations are not recorded.
_DIRECT_TO_REVERBERANT_DB = (-6.0, 12.0)
# Share. The reflection paths of two speakers differ: 5 % is 2.5 ms at 50 ms, half a period of 200 Hz. As a change of
# the reverberation time it is inaudible.
_STRETCH = 0.05
# Seconds. With a reverberation time of 2.5 s, the omitted tail after 1 s is 27 dB below the whole. The end fades out.
_LENGTH_S, _FADE_S = 1.0, 0.1


def impulse_responses(
    rooms: int,
    positions: int,
    sample_rate: int,
    generator: torch.Generator,
    t60_s: tuple[float, float] = (0.15, 0.6),
    length_s: float = 0.5,
) -> Tensor:
    """Simulate shoebox rooms of 3-8 × 3-6 × 2.4-3.5 m with one microphone each.

    The first 50 ms are computed with the image-source method (Allen & Berkley 1979), with wall absorption from Eyring's
    formula. Gaussian noise with the room's decay follows, at the level of the reflections before it. The direct path is
    at sample 0 and each response has unit energy, so that neither delay nor level changes much.

    Args:
        rooms: Number of rooms.
        positions: Speaker positions in each room.
        sample_rate: Hz.
        generator: Source of the random choices.
        t60_s: Range of the reverberation time in seconds.
        length_s: Length of a response in seconds.

    Returns:
        (rooms, positions, T).
    """

    def between(low: Tensor | float, high: Tensor | float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    size = between(torch.tensor([3.0, 3.0, 2.4]), torch.tensor([8.0, 6.0, 3.5]), rooms, 3)
    t60 = between(*t60_s, rooms, 1)
    wall = 2 * (size[:, 0] * size[:, 1] + size[:, 1] * size[:, 2] + size[:, 0] * size[:, 2])
    absorption = 1 - torch.exp(-0.161 * size.prod(1) / (wall * t60[:, 0]))
    microphone = between(0.15, 0.85, rooms, 1, 3) * size[:, None]
    speakers = between(0.1, 0.9, rooms, positions, 3) * size[:, None]
    distance, gain = _images(size, microphone, speakers, (1 - absorption).sqrt())
    direct = (speakers - microphone).norm(dim=-1, keepdim=True)  # (rooms, positions, 1)
    length = round(length_s * sample_rate)
    early = _place((distance - direct) / _SPEED_OF_SOUND * sample_rate, gain, round(_EARLY_S * sample_rate), length)
    time = torch.arange(length) / sample_rate
    decay = torch.exp(-6.9078 * time / t60)[:, None]  # (rooms, 1, T), down 60 dB at t60
    join = (time >= _EARLY_S / 2) & (time < _EARLY_S)
    level = ((early[..., join].square().sum(-1)) / decay[..., join].square().sum(-1)).sqrt()  # (rooms, positions)
    late = torch.randn(rooms, positions, length, generator=generator) * decay * level.unsqueeze(-1)
    responses: Tensor = torch.where(time < _EARLY_S, early, late)
    return responses / responses.norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]


def _images(size: Tensor, microphone: Tensor, speakers: Tensor, reflection: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance in metres and gain of every image of every speaker, (rooms, positions, images) both."""
    steps = torch.arange(-_IMAGE_ORDER, _IMAGE_ORDER + 1)
    n = torch.cartesian_prod(steps, steps, steps).repeat_interleave(8, 0)  # (images, 3), in room lengths
    p = torch.cartesian_prod(*[torch.arange(2)] * 3).repeat(len(steps) ** 3, 1)  # 1: mirrored
    bounces = ((n - p).abs() + n.abs()).sum(-1)  # (images,)
    place = (1 - 2 * p) * speakers.unsqueeze(2) + 2 * n * size[:, None, None]  # (rooms, positions, images, 3)
    distance = (place - microphone.unsqueeze(2)).norm(dim=-1).clamp_min(0.1)
    return distance, reflection[:, None, None] ** bounces / distance


def _place(delay: Tensor, gain: Tensor, end: int, length: int) -> Tensor:
    """Place pulses of ``gain`` at ``delay`` samples (…, images) before ``end``, split over two samples: (…, length)."""
    gain = gain * (delay < end)
    delay = delay.clamp(0, end)
    below = delay.long()
    share = delay - below
    pulses = torch.zeros(*delay.shape[:-1], length)
    pulses.scatter_add_(-1, below, gain * (1 - share))
    return pulses.scatter_add_(-1, (below + 1).clamp_max(length - 1), gain * share)


def reverberate(waves: Tensor, responses: Tensor) -> Tensor:
    """Convolve ``waves`` (…, T) with ``responses`` (…, T'): (…, T)."""
    n = waves.shape[-1] + responses.shape[-1] - 1
    n = 1 << (n - 1).bit_length()
    spectrum = torch.fft.rfft(waves, n) * torch.fft.rfft(responses, n)
    reverberant: Tensor = torch.fft.irfft(spectrum, n)[..., : waves.shape[-1]]
    return reverberant


def decaying_noise(
    t60_s: Tensor, direct_db: Tensor, length: int, sample_rate: int, generator: torch.Generator
) -> Tensor:
    """Make responses without the geometry of a room: direct sound, followed by noise that decays.

    Args:
        t60_s: Reverberation time of each in seconds (B,).
        direct_db: Energy of the direct sound relative to that of the noise, in dB (B,).
        length: Samples of a response.
        sample_rate: Hz.
        generator: Source of the noise, on the CPU.

    Returns:
        (B, length), with the direct sound, of level 1, at sample 0.
    """
    time = torch.arange(length) / sample_rate
    late = torch.randn(len(t60_s), length, generator=generator) * torch.exp(-6.9078 * time / t60_s[:, None])
    late *= time >= _DIRECT_S
    level = torch.pow(10, -direct_db / 20) / late.square().sum(1).sqrt().clamp_min(1e-6)
    responses = late * level[:, None]
    responses[:, 0] = 1.0
    return responses


@dataclass(frozen=True, eq=False)
class MeasuredRirs:
    """Measured impulse responses: a tensor (C, T) for each room, with the direct path of each channel at sample 0."""

    sample_rate: int
    responses: tuple[Tensor, ...]


def load_rirs(folders: Sequence[Path], sample_rate: int) -> MeasuredRirs:
    """Read every audio file under ``folders`` as a room; its channels are responses from different places.

    Args:
        folders: Folders of impulse responses, at any depth.
        sample_rate: Hz of the result.

    Returns:
        One room for each file.

    Raises:
        TrainingError: If there is no file, or a file cannot be read, has a silent channel or contains NaN.
    """
    paths = [path for folder in folders for path in audio_files(folder)]
    if not paths:
        raise TrainingError(f"[data] rir: no audio files under {', '.join(map(str, folders))}")
    return MeasuredRirs(sample_rate, tuple(_read(path, sample_rate) for path in paths))


def _read(path: Path, sample_rate: int) -> Tensor:
    try:
        waves = torch.from_numpy(read_channels(path, sample_rate))
    except InputError as error:
        raise TrainingError(f"[data] rir: {error}") from error
    if not torch.isfinite(waves).all() or not waves.any(-1).all():
        raise TrainingError(f"{path}: a channel is silent or not finite; remove the file from the folder")
    return align(waves)


def align(responses: Tensor) -> Tensor:
    """Shift each response (C, T) so that its direct path is at sample 0; pad the end with zeros."""
    level = responses.abs()
    onset = (level >= _ONSET * level.amax(-1, keepdim=True)).float().argmax(-1, keepdim=True)  # (C, 1)
    index = torch.arange(responses.shape[-1]) + onset
    inside = index < responses.shape[-1]
    return responses.gather(-1, index.clamp_max(responses.shape[-1] - 1)) * inside


def place_speakers(rirs: MeasuredRirs, count: int, positions: int, generator: torch.Generator) -> Tensor:
    """Derive ``count`` rooms with speakers at ``positions`` places from measured responses.

    A file has one response, or one for each of its channels, but two speakers need two different ones. So each position
    takes the next channel, scales its direct sound to a random direct-to-reverberant ratio (the speaker's distance) and
    stretches the reflections by up to 5 % (other paths, same character). All speakers of a room still share the colour
    of the loudspeaker and microphone of the measurement.

    Args:
        rirs: The measured rooms, used in turn from a random one.
        count: Number of rooms.
        positions: Speakers in each.
        generator: Source of the random choices.

    Returns:
        (count, positions, T): responses of 1 s and unit energy.
    """
    length = round(_LENGTH_S * rirs.sample_rate)
    fade = torch.cos(torch.linspace(0, torch.pi / 2, round(_FADE_S * rirs.sample_rate))).square()
    first = int(torch.randint(len(rirs.responses), (1,), generator=generator))
    placed = torch.zeros(count, positions, length)
    for room in range(count):
        channels = rirs.responses[(first + room) % len(rirs.responses)]
        for position in range(positions):
            response = _move(channels[position % len(channels)], rirs.sample_rate, generator)[:length]
            placed[room, position, : len(response)] = response
    placed[..., -len(fade) :] *= fade
    return placed / placed.norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]


def _move(response: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Vary the direct-to-reverberant ratio of ``response`` (T,), and the times of its reflections by up to 5 %."""
    ratio, stretch = torch.rand(2, generator=generator).tolist()
    low, high = _DIRECT_TO_REVERBERANT_DB
    time = torch.arange(len(response)) / sample_rate
    window = (1 + torch.cos(torch.pi * ((time - _DIRECT_S) / _CUT_S).clamp(0, 1))) / 2
    direct, tail = response * window, response * (1 - window)
    stretched = max(2, round(len(tail) * (1 + _STRETCH * (2 * stretch - 1))))
    tail = torch.fft.irfft(torch.fft.rfft(tail)[: stretched // 2 + 1], stretched) * (stretched / len(tail))
    energy = float(tail.square().sum()) / float(direct.square().sum())
    if energy < 1e-6:  # an anechoic room: direct sound only
        return direct
    gain = math.sqrt(energy) * 10 ** ((low + (high - low) * ratio) / 20)
    longest = max(len(direct), stretched)
    moved: Tensor = gain * F.pad(direct, (0, longest - len(direct))) + F.pad(tail, (0, longest - stretched))
    return moved


@lru_cache(maxsize=2)
def rir_pool(
    sources: int, sample_rate: int, measured_share: float = 0.0, measured: MeasuredRirs | None = None
) -> Tensor:
    """Build the 128 rooms that mixtures are drawn from, all equally likely; the same at every call.

    Args:
        sources: Speakers of a mixture.
        sample_rate: Hz.
        measured_share: Share of measured rooms, from 0 to 1; the others are synthetic.
        measured: The measured rooms at ``sample_rate``.

    Returns:
        (rooms, positions, T), with at least as many positions as ``sources``.

    Raises:
        UsageError: If measured rooms are needed and ``measured`` is None.
    """
    if measured_share and measured is None:
        raise UsageError(
            f"[task.mixing] measured_rir_share = {measured_share}: needs measured responses; name their folders in "
            "[data] rir"
        )
    generator = torch.Generator().manual_seed(_SEED)
    positions, measured_rooms = max(_POSITIONS, sources), round(_ROOMS * measured_share)
    pools = []
    if measured_rooms < _ROOMS:
        pools.append(impulse_responses(_ROOMS - measured_rooms, positions, sample_rate, generator))
    if measured_rooms and measured is not None:
        pools.append(place_speakers(measured, measured_rooms, positions, generator))
    longest = max(pool.shape[-1] for pool in pools)
    return torch.cat([F.pad(pool, (0, longest - pool.shape[-1])) for pool in pools])
