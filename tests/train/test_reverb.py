"""train/reverb.py: impulse responses that sound like rooms."""

from __future__ import annotations

import torch
from corpora import generator

from audiosr_cli.train.reverb import impulse_responses, reverberate

RATE = 8000


def decay_time(response: torch.Tensor) -> float:
    """T60 in seconds from the energy decay curve between -5 and -25 dB (Schroeder 1965)."""
    left = response.square().flip(0).cumsum(0).flip(0)
    level = 10 * torch.log10(left / left[0] + 1e-12)
    start, end = (int((level < limit).float().argmax()) for limit in (-5, -25))
    return 3 * (end - start) / RATE


def test_direct_path_comes_first_and_energy_is_one() -> None:
    made = impulse_responses(16, 3, RATE, generator())
    assert made.shape == (16, 3, RATE // 2)
    torch.testing.assert_close(made.square().sum(-1), torch.ones(16, 3))
    assert (made[..., 0] > 0.1).all()
    assert (made[..., 0].square() > 0.5).any()  # someone stands near
    assert not torch.equal(made[:, 0], made[:, 1])


def test_rooms_decay_as_asked() -> None:
    for t60 in (0.2, 0.5):
        made = impulse_responses(24, 1, RATE, generator(), (t60, t60), 1.0)[:, 0]
        found = torch.tensor([decay_time(response) for response in made])
        assert 0.7 * t60 < float(found.median()) < 1.3 * t60


def test_convolves_and_keeps_lag_and_length() -> None:
    waves = torch.randn(2, 3, 1000, generator=generator())
    response = torch.zeros(2, 3, 50)
    response[..., 0], response[..., 7] = 1.0, 0.5
    expected = waves.clone()
    expected[..., 7:] += 0.5 * waves[..., :-7]
    torch.testing.assert_close(reverberate(waves, response), expected, atol=1e-5, rtol=0)
