"""train/measured_rooms.py: measured responses become rooms with several speakers in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from corpora import generator

from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.train.measured_rooms import MeasuredRooms, align, load_rooms, place_speakers, room_pool
from audiosr_cli.train.reverb import impulse_responses

RATE = 8000


def hall(seconds: float = 2.0, t60: float = 1.5, seed: int = 0) -> torch.Tensor:
    """A direct path and 10 ms later noise that decays: (1, T)."""
    time = torch.arange(round(seconds * RATE)) / RATE
    response = 0.1 * torch.randn(len(time), generator=generator(seed)) * torch.exp(-6.9 * time / t60) * (time > 0.01)
    response[0] = 1.0
    return response[None]


def test_responses_are_read_at_the_rate_of_the_run_and_start_at_their_direct_path(tmp_path: Path) -> None:
    wave = np.zeros((44100, 2))
    wave[:, 0] = 0.003 * np.random.default_rng(0).standard_normal(44100)  # noise before the direct path
    wave[4410, 0] = wave[8820, 1] = 0.9
    wave[4410 + 2205, 0] = wave[8820 + 2205, 1] = 0.4
    (tmp_path / "deeper").mkdir()
    soundfile.write(tmp_path / "deeper" / "hall.wav", wave, 44100)
    rooms = load_rooms([tmp_path], RATE)
    assert rooms.sample_rate == RATE
    (response,) = rooms.responses
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
    ("wave", "said"), [(np.zeros((800, 1)), "silent or not finite"), (None, "cannot be read as audio")]
)
def test_files_that_are_no_responses_are_named(wave: np.ndarray | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="rir: no audio files under"):
        load_rooms([tmp_path], RATE)
    if wave is None:
        (tmp_path / "hall.flac").write_bytes(b"no audio at all, but a name like it")
    else:
        soundfile.write(tmp_path / "hall.flac", wave, RATE)
    with pytest.raises(TrainingError, match=rf"hall\.flac.*{said}"):
        load_rooms([tmp_path], RATE)


def test_speakers_of_a_room_stand_at_different_places() -> None:
    """Another direct-to-reverberant ratio, other reflections; one length, unit energy, no lag."""
    placed = place_speakers(MeasuredRooms(RATE, (hall(),)), 20, 3, generator())
    assert placed.shape == (20, 3, RATE)
    torch.testing.assert_close(placed.norm(dim=-1), torch.ones(20, 3))
    assert (placed.abs().argmax(-1) == 0).all()
    energy = placed.square()
    direct, rest = energy[..., :40].sum(-1), energy[..., 40:].sum(-1)
    ratio = 10 * torch.log10(direct / rest)
    assert -7 < float(ratio.min()) < -3
    assert 9 < float(ratio.max()) < 13
    assert (ratio[:, 0] - ratio[:, 1]).abs().max() > 3
    late = placed[..., 400:] / placed[..., 400:].norm(dim=-1, keepdim=True)
    assert (late[:, 0] * late[:, 1]).sum(-1).abs().mean() < 0.2
    assert energy[..., -20:].mean() < 1e-3 * energy[..., -1200:-1000].mean()  # fades out where it is cut


def test_an_anechoic_response_stays_one() -> None:
    response = torch.zeros(1, 500)
    response[0, 0] = 0.3
    placed = place_speakers(MeasuredRooms(RATE, (response,)), 2, 2, generator())
    assert torch.equal(placed[..., 0], torch.ones(2, 2))
    assert placed[..., 1:].abs().max() == 0


def test_channels_are_places_of_speakers() -> None:
    response = torch.zeros(2, 4000)
    response[:, 0], response[0, 1000], response[1, 2000] = 1.0, 0.5, 0.5
    placed = place_speakers(MeasuredRooms(RATE, (response,)), 4, 4, generator())
    reflection = placed[..., 100:].abs().argmax(-1) + 100
    assert ((reflection[:, [0, 2]] - 1000).abs() <= 51).all()
    assert ((reflection[:, [1, 3]] - 2000).abs() <= 101).all()


def test_the_pool_has_the_share_of_real_rooms_asked_for() -> None:
    measured = MeasuredRooms(RATE, (hall(), hall(seed=1)))
    synthetic = room_pool(2, RATE)
    assert torch.equal(synthetic, impulse_responses(128, 4, RATE, torch.Generator().manual_seed(20261120)))
    mixed, real = room_pool(2, RATE, 0.25, measured), room_pool(2, RATE, 1.0, measured)
    assert mixed.shape == real.shape == (128, 4, RATE)
    long = mixed[..., RATE // 2 :].abs().amax((1, 2)) > 0  # synthetic ones end after half a second
    assert int(long.sum()) == 32
    assert room_pool(6, RATE).shape[1] == 6
    with pytest.raises(UsageError, match=r"real_rooms = 0\.25: \[data\] rir names no folder"):
        room_pool(2, RATE, 0.25)


def test_the_real_responses(data: Path) -> None:
    rooms = load_rooms([data / "rir" / "train"], 16000)
    assert len(rooms.responses) == 14
    placed = place_speakers(rooms, 14, 2, generator())
    assert torch.isfinite(placed).all()
    assert (placed[..., :16].abs().amax(-1) > 0.1).all()  # the direct sound arrives within a millisecond
    late = placed[..., 800:]
    likeness = (late[:, 0] * late[:, 1]).sum(-1) / (late[:, 0].norm(dim=-1) * late[:, 1].norm(dim=-1)).clamp_min(1e-6)
    assert likeness.abs().median() < 0.1
