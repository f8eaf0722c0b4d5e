"""train/reverb.py: synthetic room impulse responses, measured ones, and the pool of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpora import generator

from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.train.reverb import (
    MeasuredRirs,
    align,
    decaying_noise,
    impulse_responses,
    load_rirs,
    place_speakers,
    reverberate,
    rir_pool,
)

RATE = 8000


def decay_time(response: torch.Tensor) -> float:
    """T60 in seconds from the energy decay curve between -5 and -25 dB (Schroeder 1965)."""
    left = response.square().flip(0).cumsum(0).flip(0)
    level = 10 * torch.log10(left / left[0] + 1e-12)
    start, end = (int((level < limit).float().argmax()) for limit in (-5, -25))
    return 3 * (end - start) / RATE


def test_synthetic_responses_start_at_the_direct_path_with_unit_energy() -> None:
    responses = impulse_responses(16, 3, RATE, generator())
    assert responses.shape == (16, 3, RATE // 2)
    torch.testing.assert_close(responses.square().sum(-1), torch.ones(16, 3))
    assert (responses[..., 0] > 0.1).all()
    assert (responses[..., 0].square() > 0.5).any()  # someone stands near
    assert not torch.equal(responses[:, 0], responses[:, 1])


def test_synthetic_rooms_have_the_requested_reverberation_time() -> None:
    for t60 in (0.2, 0.5):
        responses = impulse_responses(24, 1, RATE, generator(), (t60, t60), 1.0)[:, 0]
        measured = torch.tensor([decay_time(response) for response in responses])
        assert 0.7 * t60 < float(measured.median()) < 1.3 * t60


def test_reverberate_is_a_convolution_without_delay() -> None:
    waves = torch.randn(2, 3, 1000, generator=generator())
    response = torch.zeros(2, 3, 50)
    response[..., 0], response[..., 7] = 1.0, 0.5
    expected = waves.clone()
    expected[..., 7:] += 0.5 * waves[..., :-7]
    torch.testing.assert_close(reverberate(waves, response), expected, atol=1e-5, rtol=0)


def hall(seconds: float = 2.0, t60: float = 1.5, seed: int = 0) -> torch.Tensor:
    """A direct path and 10 ms later noise that decays: (1, T)."""
    time = torch.arange(round(seconds * RATE)) / RATE
    response = 0.1 * torch.randn(len(time), generator=generator(seed)) * torch.exp(-6.9 * time / t60) * (time > 0.01)
    response[0] = 1.0
    return response[None]


def test_responses_are_resampled_and_start_at_their_direct_path(tmp_path: Path) -> None:
    wave = np.zeros((44100, 2))
    wave[:, 0] = 0.003 * np.random.default_rng(0).standard_normal(44100)  # noise before the direct path
    wave[4410, 0] = wave[8820, 1] = 0.9
    wave[4410 + 2205, 0] = wave[8820 + 2205, 1] = 0.4
    (tmp_path / "deeper").mkdir()
    soundfile.write(tmp_path / "deeper" / "hall.wav", wave, 44100)
    rirs = load_rirs([tmp_path], RATE)
    assert rirs.sample_rate == RATE
    (response,) = rirs.responses
    assert response.shape == (2, RATE)
    for channel in response:
        assert int(channel.abs().argmax()) <= 4
        assert abs(int(channel[100:].abs().argmax()) + 100 - 400) <= 4  # the reflection after 50 ms


def test_alignment_ignores_what_is_20_db_below_the_maximum() -> None:
    response = torch.zeros(2, 10)
    response[0, [2, 4, 5]] = torch.tensor([0.05, 1.0, 0.5])
    response[1, [1, 6]] = torch.tensor([-0.2, 1.0])
    assert align(response)[0].tolist() == [1.0, 0.5, *[0.0] * 8]
    assert align(response)[1, [0, 5]].tolist() == pytest.approx([-0.2, 1.0])


@pytest.mark.parametrize(
    ("wave", "message"), [(np.zeros((800, 1)), "silent or not finite"), (None, "cannot be read as audio")]
)
def test_files_that_are_not_responses_are_named_in_the_error(
    wave: np.ndarray | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="rir: no audio files under"):
        load_rirs([tmp_path], RATE)
    if wave is None:
        (tmp_path / "hall.flac").write_bytes(b"no audio at all, but a name like it")
    else:
        soundfile.write(tmp_path / "hall.flac", wave, RATE)
    with pytest.raises(TrainingError, match=rf"hall\.flac.*{message}"):
        load_rirs([tmp_path], RATE)


def test_speakers_of_a_room_stand_at_different_places() -> None:
    """Another direct-to-reverberant ratio, other reflections; one length, unit energy, no lag."""
    placed = place_speakers(MeasuredRirs(RATE, (hall(),)), 20, 3, generator())
    assert placed.shape == (20, 3, RATE)
    torch.testing.assert_close(placed.norm(dim=-1), torch.ones(20, 3))
    assert (placed.abs().argmax(-1) == 0).all()
    energy = placed.square()
    direct, reverberant = energy[..., :40].sum(-1), energy[..., 40:].sum(-1)
    ratio = 10 * torch.log10(direct / reverberant)
    assert -7 < float(ratio.min()) < -3
    assert 9 < float(ratio.max()) < 13
    assert (ratio[:, 0] - ratio[:, 1]).abs().max() > 3
    late = placed[..., 400:] / placed[..., 400:].norm(dim=-1, keepdim=True)
    assert (late[:, 0] * late[:, 1]).sum(-1).abs().mean() < 0.2
    assert energy[..., -20:].mean() < 1e-3 * energy[..., -1200:-1000].mean()  # fades out where it is cut


def test_an_anechoic_response_stays_anechoic() -> None:
    response = torch.zeros(1, 500)
    response[0, 0] = 0.3
    placed = place_speakers(MeasuredRirs(RATE, (response,)), 2, 2, generator())
    assert torch.equal(placed[..., 0], torch.ones(2, 2))
    assert placed[..., 1:].abs().max() == 0


def test_channels_are_places_of_speakers() -> None:
    response = torch.zeros(2, 4000)
    response[:, 0], response[0, 1000], response[1, 2000] = 1.0, 0.5, 0.5
    placed = place_speakers(MeasuredRirs(RATE, (response,)), 4, 4, generator())
    reflection = placed[..., 100:].abs().argmax(-1) + 100
    assert ((reflection[:, [0, 2]] - 1000).abs() <= 51).all()
    assert ((reflection[:, [1, 3]] - 2000).abs() <= 101).all()


def test_the_pool_has_the_requested_share_of_measured_rooms() -> None:
    measured = MeasuredRirs(RATE, (hall(), hall(seed=1)))
    synthetic = rir_pool(2, RATE)
    assert torch.equal(synthetic, impulse_responses(128, 4, RATE, torch.Generator().manual_seed(20261120)))
    mixed, all_measured = rir_pool(2, RATE, 0.25, measured), rir_pool(2, RATE, 1.0, measured)
    assert mixed.shape == all_measured.shape == (128, 4, RATE)
    long = mixed[..., RATE // 2 :].abs().amax((1, 2)) > 0  # synthetic ones end after half a second
    assert int(long.sum()) == 32
    assert rir_pool(6, RATE).shape[1] == 6
    with pytest.raises(UsageError, match=r"measured_rir_share = 0\.25: needs measured responses"):
        rir_pool(2, RATE, 0.25)


def test_measured_responses_of_real_rooms(data: Path) -> None:
    rirs = load_rirs([data / "rir" / "train"], 16000)
    assert len(rirs.responses) == 14
    placed = place_speakers(rirs, 14, 2, generator())
    assert torch.isfinite(placed).all()
    assert (placed[..., :16].abs().amax(-1) > 0.1).all()  # the direct sound arrives within a millisecond
    late = placed[..., 800:]
    correlation = (late[:, 0] * late[:, 1]).sum(-1) / (late[:, 0].norm(dim=-1) * late[:, 1].norm(dim=-1)).clamp_min(
        1e-6
    )
    assert correlation.abs().median() < 0.1


def test_decaying_noise_has_its_reverberation_time_and_direct_sound() -> None:
    t60_s, direct_db = torch.tensor([0.3, 0.8]), torch.tensor([0.0, 6.0])
    responses = decaying_noise(t60_s, direct_db, 8000, 8000, torch.Generator().manual_seed(0))
    late = responses[:, 1:].square()
    assert responses[:, 0].tolist() == [1.0, 1.0]
    torch.testing.assert_close(-10 * late.sum(1).log10(), direct_db, atol=0.01, rtol=0)
    fall_db = 10 * (late[:, 400:1200].sum(1) / late[:, 2000:2800].sum(1)).log10()  # over 0.2 s
    torch.testing.assert_close(fall_db, 60 * 0.2 / t60_s, atol=1.5, rtol=0)
