"""Synthetic rooms: impulse responses of shoebox rooms, many at once."""

from __future__ import annotations

import torch
from torch import Tensor

_SPEED_OF_SOUND = 343.0  # m/s
_EARLY_S = 0.05  # up to here single reflections, from here on their statistics
_REACH = 4  # images up to this many rooms away on each side


def impulse_responses(
    rooms: int,
    positions: int,
    sample_rate: int,
    generator: torch.Generator,
    t60_s: tuple[float, float] = (0.15, 0.6),
    length_s: float = 0.5,
) -> Tensor:
    """Impulse responses (rooms, positions, T): one microphone a room, ``positions`` of speakers.

    Rooms of 3-8 × 3-6 × 2.4-3.5 m whose reverberation time lies in ``t60_s``. Reflections of the first 50 ms by
    the image-source method (Allen & Berkley 1979), the wall's absorption by Eyring's formula; after that
    Gaussian noise that decays as the room does, at the level of what it continues. The direct path stands at
    sample 0, and each response has unit energy: neither lag nor level changes much.
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
    made: Tensor = torch.where(time < _EARLY_S, early, late)
    return made / made.norm(dim=-1, keepdim=True)  # type: ignore[no-any-return]


def _images(size: Tensor, microphone: Tensor, speakers: Tensor, reflection: Tensor) -> tuple[Tensor, Tensor]:
    """Distance in metres and gain of every image of every speaker, (rooms, positions, images) both."""
    steps = torch.arange(-_REACH, _REACH + 1)
    n = torch.cartesian_prod(steps, steps, steps).repeat_interleave(8, 0)  # (images, 3): whole rooms away
    p = torch.cartesian_prod(*[torch.arange(2)] * 3).repeat(len(steps) ** 3, 1)  # mirrored or not
    bounces = ((n - p).abs() + n.abs()).sum(-1)  # (images,)
    place = (1 - 2 * p) * speakers.unsqueeze(2) + 2 * n * size[:, None, None]  # (rooms, positions, images, 3)
    distance = (place - microphone.unsqueeze(2)).norm(dim=-1).clamp_min(0.1)
    return distance, reflection[:, None, None] ** bounces / distance


def _place(delay: Tensor, gain: Tensor, end: int, length: int) -> Tensor:
    """Pulses of ``gain`` at ``delay`` samples (…, images) before ``end``, shared by two neighbours: (…, length)."""
    gain = gain * (delay < end)
    delay = delay.clamp(0, end)
    below = delay.long()
    share = delay - below
    made = torch.zeros(*delay.shape[:-1], length)
    made.scatter_add_(-1, below, gain * (1 - share))
    return made.scatter_add_(-1, (below + 1).clamp_max(length - 1), gain * share)


def reverberate(waves: Tensor, responses: Tensor) -> Tensor:
    """``waves`` (…, T) heard through ``responses`` (…, T'): convolved, as long as before."""
    n = waves.shape[-1] + responses.shape[-1] - 1
    n = 1 << (n - 1).bit_length()
    spectrum = torch.fft.rfft(waves, n) * torch.fft.rfft(responses, n)
    heard: Tensor = torch.fft.irfft(spectrum, n)[..., : waves.shape[-1]]
    return heard
