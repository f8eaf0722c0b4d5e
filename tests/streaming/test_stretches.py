"""streaming/stretches.py: where the bandwidth of a recording changes, over time and from channel to channel."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from conftest import noise, tone
from voices import talk, turns

from audiosr_cli.dsp.bandwidth import BandMeter
from audiosr_cli.streaming.stretches import Bandwidth, Stretch, measure_bandwidth

EDGE_S = 0.3  # how much a stretch may begin too late and end too early


def measured(wave: np.ndarray, sample_rate: int = 48000, block: int = 65536) -> Bandwidth:
    return measure_bandwidth([wave[:, i : i + block] for i in range(0, wave.shape[1], block)], sample_rate)


def cutoffs(bandwidth: Bandwidth) -> list[float]:
    return [round(stretch.cutoff_hz or 0) for stretch in bandwidth.stretches]


@pytest.mark.parametrize("cutoff", [3400, 4000, 8000, 12000])
@pytest.mark.parametrize("turn_s", [2.0, 5.0])
def test_a_band_limited_guest_has_stretches_of_his_own(cutoff: float, turn_s: float) -> None:
    bandwidth = measured(turns((5.0, None), (turn_s, cutoff), (5.0, None), (turn_s, cutoff)))
    assert len(bandwidth.stretches) == 4
    assert bandwidth.cutoff_hz == 24000
    assert cutoffs(bandwidth)[::2] == [24000, 24000]
    assert cutoffs(bandwidth)[1::2] == pytest.approx([cutoff, cutoff], rel=0.05)
    first, last = 5.0, 5.0 + turn_s
    for guest in bandwidth.stretches[1::2]:
        assert first <= guest.start_s < first + EDGE_S  # the host is not touched
        assert last - EDGE_S < guest.end_s <= last
        first, last = first + 5.0 + turn_s, last + 5.0 + turn_s
    assert all(one.end_s == two.start_s for one, two in pairwise(bandwidth.stretches))
    assert all(stretch.channel is None for stretch in bandwidth.stretches)
    assert (bandwidth.stretches[0].start_s, bandwidth.stretches[-1].end_s) == (0.0, 10.0 + 2 * turn_s)


@pytest.mark.parametrize("floor", [0.0, 3e-5])
@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_guests_are_found_at_other_rates_and_noise_floors(sample_rate: int, floor: float) -> None:
    wave = turns((4.0, None), (4.0, 3400), (4.0, None), sample_rate=sample_rate, floor=floor)
    assert len(measured(wave, sample_rate).stretches) == 3


def test_three_bandwidths_have_stretches() -> None:
    bandwidth = measured(turns((4.0, None), (4.0, 3400), (4.0, 8000), (4.0, None), (4.0, 3400)))
    assert cutoffs(bandwidth) == pytest.approx([24000, 3400, 8000, 24000, 3400], rel=0.05)


def test_two_limited_bandwidths_have_stretches() -> None:
    bandwidth = measured(turns((5.0, 8000), (5.0, 3400), (5.0, 8000)))
    assert cutoffs(bandwidth) == pytest.approx([8000, 3400, 8000], rel=0.05)
    assert bandwidth.cutoff_hz == pytest.approx(8000, rel=0.05)


def fading(seconds: float) -> np.ndarray:
    """A band-limited tail, as a codec leaves it of full-band sound that decays."""
    wave = turns((seconds, None), (seconds, 4000))
    wave[:, wave.shape[1] // 2 :] *= 0.05
    return wave


ORDINARY = {
    "full band": turns((8.0, None)),
    "narrow": turns((8.0, 4000)),
    "pauses": turns((3.0, 4000)) * np.repeat([1, 0, 1], 48000),
    "noise in pauses": turns((3.0, 4000)) * np.repeat([1, 0, 1], 48000) + noise(3 * 48000, 1, 1e-4),
    "soft then loud": turns((8.0, None)) * np.repeat([0.02, 1], 4 * 48000),
    "tone": tone(6 * 48000, 3000, 48000) + noise(6 * 48000, 1, 1e-4),
    "vowel then hiss": np.concatenate([talk(3, None) * 0.1, noise(3 * 48000)], axis=1),
    "click": turns((8.0, 4000)) + 0.5 * (np.arange(8 * 48000) == 200_000).astype(np.float32),
    "tail": fading(4.0),
    "short guest": turns((5.0, None), (0.6, 4000), (5.0, None)),
    "overlap": turns((6.0, None)) + turns((6.0, 4000)),
    "silence": np.zeros((1, 96000), np.float32),
    "nothing": np.zeros((1, 0), np.float32),
    "too short": turns((0.5, 4000)),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_a_recording_with_one_bandwidth_has_the_cutoff_of_its_mean_spectrum(name: str) -> None:
    meter = BandMeter(48000)
    meter.push(ORDINARY[name])
    assert measured(ORDINARY[name]) == Bandwidth(meter.cutoff())


def test_who_speaks_over_a_guest_ends_his_stretch() -> None:
    wave = turns((4.0, None), (8.0, 4000))
    wave[:, 8 * 48000 :] += talk(4.0, None, seed=5)
    (host, guest, both) = measured(wave).stretches
    assert guest.end_s == pytest.approx(8.0, abs=EDGE_S)
    assert (host.cutoff_hz, both.cutoff_hz) == (24000, 24000)


def test_a_word_of_the_host_is_left_alone_and_a_click_is_not() -> None:
    words = measured(turns((4.0, None), (4.0, 4000), (0.6, None), (4.0, 4000)))
    assert len(words.stretches) == 4
    wave = turns((4.0, None), (8.0, 4000))
    wave[:, 8 * 48000] += 0.3
    assert len(measured(wave).stretches) == 2


def test_pauses_belong_to_what_surrounds_them() -> None:
    wave = turns((4.0, None), (9.0, 4000), (4.0, None))
    wave[:, 7 * 48000 : 10 * 48000] *= 1e-3
    assert len(measured(wave).stretches) == 3


def test_blocks_do_not_change_the_stretches() -> None:
    wave = turns((3.0, None), (3.0, 4000))
    assert measured(wave, block=10_007) == measured(wave) == measured(wave, block=10**6)


@pytest.mark.parametrize("order", [1, -1])
def test_a_channel_of_a_telephone_has_its_own_cutoff(order: int) -> None:
    bandwidth = measured(np.concatenate([turns((8.0, None)), turns((8.0, 3400))][::order]))
    assert [stretch.channel for stretch in bandwidth.stretches] == [1, 2]
    assert cutoffs(bandwidth)[::order] == pytest.approx([24000, 3400], rel=0.05)
    assert bandwidth.cutoff_hz == 24000


def test_speakers_on_channels_of_their_own_are_decided_for_each_channel() -> None:
    """All channels together change their bandwidth from turn to turn, but neither of them does."""
    left, right = turns((4.0, None), (4.0, None)), turns((4.0, 3400), (4.0, 3400))
    left[:, 4 * 48000 :] *= 1e-3
    right[:, : 4 * 48000] *= 1e-3
    bandwidth = measured(np.concatenate([left, right]))
    assert [stretch.channel for stretch in bandwidth.stretches] == [1, 2]


def test_a_guest_on_one_channel_has_stretches_there_only() -> None:
    left, right = turns((12.0, None)), turns((4.0, None), (4.0, 3400), (4.0, None))
    bandwidth = measured(np.concatenate([left, right]))
    assert [stretch.channel for stretch in bandwidth.stretches] == [1, 2, 2, 2]


@pytest.mark.parametrize("gain", [1.0, 0.4, 0.0])
def test_channels_that_agree_are_decided_together(gain: float) -> None:
    """A centred voice stays centred; a silent channel does not matter."""
    wave = turns((4.0, None), (4.0, 3400), floor=0.0)
    other = gain * wave + (gain > 0) * noise(wave.shape[1], 1, 1e-5, 7)
    bandwidth = measured(np.concatenate([wave, other]))
    assert [stretch.channel for stretch in bandwidth.stretches] == [None, None]


def test_channels_with_different_sounds_are_decided_together() -> None:
    """Mean spectra that end at different frequencies, without a wall: an instrument on each side."""
    left, right = turns((6.0, None)), turns((6.0, None))
    spectrum = np.fft.rfft(right)
    spectrum /= (1 + (np.fft.rfftfreq(right.shape[1], 1 / 48000) / 3000) ** 16) ** 0.5
    right = np.fft.irfft(spectrum, right.shape[1]).astype(np.float32)
    assert measured(right).cutoff_hz == pytest.approx(3000, rel=0.2)
    assert not measured(np.concatenate([left, right])).stretches


def test_rates_without_room_for_two_bandwidths_have_one() -> None:
    assert not measured(turns((4.0, None), (4.0, 3000), sample_rate=8000), 8000).stretches


def test_samples_that_are_not_finite_do_not_matter() -> None:
    wave = turns((4.0, None), (4.0, 4000))
    wave[0, [1000, 300_000]] = np.nan, np.inf
    assert len(measured(wave).stretches) == 2


def test_after_the_beginning_of_a_pipe_the_widest_stretch_goes_on() -> None:
    start = Bandwidth(9000.0, (Stretch(0.0, 3.0, 9000.0), Stretch(3.0, 9.0, 4000.0)))
    longer = start.continued()
    assert [(stretch.start_s, stretch.cutoff_hz) for stretch in longer.stretches] == [
        (0.0, 9000.0),
        (3.0, 4000.0),
        (pytest.approx(9.0, abs=0.1), 9000.0),
    ]
    assert longer.stretches[-1].end_s == math.inf
    assert longer.stretches[1].end_s == longer.stretches[2].start_s > 9.0  # if it ends there, so does the guest
    assert longer.until(9.0) == start
    assert longer.until(60.0).stretches[-1].end_s == 60.0
    wide = Bandwidth(9000.0, (Stretch(0.0, 3.0, 4000.0, 1), Stretch(3.0, 9.0, 9000.0, 1), Stretch(0.0, 9.0, 9000.0, 2)))
    assert [stretch.end_s for stretch in wide.continued().stretches] == [3.0, math.inf, math.inf]
    assert Bandwidth(4000.0).continued() == Bandwidth(4000.0)
