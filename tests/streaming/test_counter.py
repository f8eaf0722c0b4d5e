"""streaming/counter.py: speakers of a stream, with a separator and an encoder that know voices by their pitch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import noise
from torch import Tensor

from audiosr_cli.models import Model, build, make_config
from audiosr_cli.streaming.counter import SpeakerCounter
from audiosr_cli.streaming.counting import SpeakerCount
from audiosr_cli.streaming.options import Options, Samples

RATE = 8000


def voice(hz: float, seconds: float, rate: int = RATE) -> Samples:
    """Harmonics of a pitch (1, T), three syllables a second."""
    time = np.arange(round(seconds * rate)) / rate
    harmonics = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 6))
    output: Samples = (0.1 * harmonics * (1 + np.cos(6 * np.pi * time)) ** 2)[None].astype(np.float32)
    return output


def separator(shares: tuple[float, ...]) -> Model:
    """Return so much of the mixture as each source, in windows of 4 s."""
    values = {"sample_rate": RATE, "depth": 2, "filters": 2, "core": 32768, "overlap": 16384, "output": "linear"}
    values |= {"difference": False, "sources": len(shares)}
    model = build("wave_u_net", make_config("wave_u_net", values))
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    for source, share in enumerate(shares):
        model.head.weight.data[source, -1] = share
    return model.eval().requires_grad_(False)


def denoiser(shares: tuple[float, float]) -> Model:
    """Return so much of the recording as speech, and as the rest."""
    model = separator(shares)
    model.spec = replace(model.spec, rest=True)
    return model


class PitchEncoder:
    """An embedding for each range of 40 Hz of the strongest harmonic."""

    def embed(self, waves: Tensor, sample_rate: int) -> Tensor:
        spectrum = torch.fft.rfft(waves, sample_rate).abs()[:, :400]  # a bin is 1 Hz
        return torch.eye(10)[spectrum.argmax(1) // 40]


def count(
    *blocks: Samples,
    shares: tuple[float, float] = (1.0, 0.0),
    rate: int = RATE,
    models: dict[str, Model] | None = None,
    **options: Any,
) -> SpeakerCount:
    counter = SpeakerCounter(separator(shares), cast("Any", PitchEncoder()), **(models or {}))
    return counter.count(blocks, rate, Options(**options))


def test_voices_in_turns_are_counted() -> None:
    assert count(voice(100, 12)).speakers == 1
    assert count(voice(100, 9), voice(180, 9), voice(100, 4)).speakers == 2
    assert count(voice(100, 9), voice(180, 9), voice(250, 9)).speakers == 3


def test_the_seconds_of_what_was_analysed_are_reported() -> None:
    assert count(voice(100, 3), voice(100, 2.5)).analysed_s == 5.5


def test_blocks_and_threads_do_not_matter() -> None:
    signal = np.concatenate([voice(100, 9), voice(180, 4)], axis=1)
    whole, pieces = count(signal), count(*np.array_split(signal, 50, axis=1), threads=3)
    assert (whole.speakers, whole.confidence) == (pieces.speakers, pieces.confidence)


def test_noise_and_silence_hold_no_voices() -> None:
    assert count(noise(10 * RATE)).voices == count(np.zeros((1, 10 * RATE), np.float32)).voices == count().voices == 0


def test_noise_between_speech_lowers_the_confidence() -> None:
    clear, noisy = count(voice(100, 12)), count(voice(100, 12), noise(12 * RATE))
    assert noisy.speakers == 1
    assert 0.4 * clear.confidence < noisy.confidence < 0.7 * clear.confidence


def test_faint_speech_beside_loud_speech_is_leakage() -> None:
    assert count(voice(100, 9), 0.02 * voice(180, 9)).speakers == 1
    assert count(voice(100, 9), 0.1 * voice(180, 9)).speakers == 2


def test_two_equally_loud_sources_are_two_speakers_and_a_louder_one_is_one() -> None:
    assert count(voice(100, 12), shares=(0.5, 0.5)).speakers == 2
    assert count(voice(100, 12), shares=(0.7, 0.3)).speakers == 1


@pytest.mark.parametrize(
    ("shares", "shares3", "speakers"),
    [
        ((0.5, 0.5), (0.4, 0.3, 0.3), 3),
        ((0.5, 0.5), (0.5, 0.42, 0.08), 2),  # the third source is 16 dB below the first
        ((1.0, 0.0), (0.4, 0.3, 0.3), 1),  # two do not speak at once
    ],
)
def test_three_sources_of_similar_level_are_three_speakers_where_two_speak_at_once(
    shares: tuple[float, float], shares3: tuple[float, ...], speakers: int
) -> None:
    assert count(voice(100, 12), shares=shares, models={"separator3": separator(shares3)}).speakers == speakers


def test_noise_is_removed_before_the_voices_are_told_apart() -> None:
    """A denoiser that returns nothing leaves no voices; one that returns all of it changes nothing."""
    signal = np.concatenate([voice(100, 9), voice(180, 9)], axis=1)
    assert largest_input({"denoiser": denoiser((0.5, 0.5))}) == pytest.approx(0.5 * largest_input({}), rel=0.01)
    assert count(signal, models={"denoiser": denoiser((0.0, 1.0))}).voices == 0
    assert count(signal, models={"denoiser": denoiser((1.0, 0.0))}, threads=2).speakers == 2


def largest_input(models: dict[str, Model]) -> float:
    """Return the largest sample that the separator gets."""
    model, largest = separator((1.0, 0.0)), list[float]()
    model.register_forward_pre_hook(lambda _, x: largest.append(float(x[0].abs().max())))
    SpeakerCounter(model, cast("Any", PitchEncoder()), **models).count([voice(100, 9)], RATE, Options())  # type: ignore[arg-type]
    return max(largest)


def test_the_third_separator_runs_only_where_two_speak_at_once() -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    model = separator((0.4, 0.3, 0.3))
    model.register_forward_pre_hook(fail)
    assert count(voice(100, 12), models={"separator3": model}).speakers == 1
    with pytest.raises(AssertionError):
        count(voice(100, 12), shares=(0.5, 0.5), models={"separator3": model})


def test_windows_of_which_the_denoiser_leaves_little_hold_no_voices() -> None:
    assert count(voice(100, 12), models={"denoiser": denoiser((0.5, 0.5))}).voices == 1
    assert count(voice(100, 12), models={"denoiser": denoiser((0.2, 0.8))}).voices == 0


def test_all_models_that_decide_are_named() -> None:
    models = separator((1.0, 0.0)), denoiser((1.0, 0.0)), separator((1.0, 0.0, 0.0))
    counter = SpeakerCounter(models[0], cast("Any", PitchEncoder()), denoiser=models[1], separator3=models[2])
    assert set(map(id, counter.models)) == set(map(id, (*models, counter.speaker_encoder)))


def test_channels_and_rates_of_recordings_are_converted() -> None:
    stereo = np.concatenate([np.repeat(voice(hz, 9, 44100), 2, axis=0) for hz in (100, 180)], axis=1)
    assert count(stereo, rate=44100).speakers == 2
    stereo[1] = 0
    assert count(stereo, rate=44100, channels=2).voices == 0


def test_samples_that_are_not_finite_count_as_zero() -> None:
    signal = voice(100, 12)
    signal[0, 40000:40010] = np.nan, np.inf, -np.inf, *[0.0] * 7
    assert count(signal).speakers == 1
