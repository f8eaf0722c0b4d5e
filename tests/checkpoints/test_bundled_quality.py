"""The bundled models on the example recordings: none is worse than the figure in weights/README.md.

The examples are seconds of synthetic speech, so the figures are not those of real speech. If you replace weights,
replace their figure, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import EXAMPLES
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.dsp.metrics import best_order, lsd, si_sdr
from audiosr_cli.models import Model
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.pipelines import UpsampleOptions
from audiosr_cli.streaming.in_memory import process_array
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline

# How much worse a figure may be. bfloat16 changes them by 0.013 dB and 0.001 LSD at most, other kernels for float32 by
# less; a layer without weights changes them by 0.5 to 6 dB and 0.1 to 3 LSD in most cases.
MARGINS = {"SI-SDRi": 0.15, "SI-SDR": 0.15, "LSD": 0.02, "%": 2.0}
NAMES = list(catalogue.entries())


def example(name: str, rate: int) -> np.ndarray:
    """Read an example recording (T,) at ``rate`` Hz."""
    wave, own_rate = soundfile.read(EXAMPLES / name, dtype="float32")
    return soxr.resample(wave, own_rate, rate).astype(np.float32) if own_rate != rate else wave


def separation(model: Model) -> float:
    """Compute the mean SI-SDR improvement in dB for a mixture of as many speakers as the model separates."""
    if model.spec.rest:
        return denoising(model)
    rate, names = model.spec.in_rate, [f"two_speakers_reference{i}.flac" for i in (1, 2)]
    if model.spec.sources == 3:
        names = [f"voices/valid/{name}/1.ogg" for name in ("carl", "emma", "ruth")]
    waves = [example(name, rate) for name in names]
    length = min(map(len, waves))
    references = torch.from_numpy(np.stack([wave[:length] for wave in waves]))
    mixture = references.sum(0)
    estimates = torch.from_numpy(process_array(mixture.numpy(), rate, [model], rate, Options())[:, 0])
    order = best_order(estimates, references)
    return float((si_sdr(estimates[list(order)], references) - si_sdr(mixture[None], references)).mean())


def denoising(model: Model) -> float:
    """Compute the SI-SDR improvement in dB of a voice in noise of speech's mean spectrum, as loud as the voice."""
    rate = model.spec.in_rate
    voice = example("two_speakers_reference1.flac", rate)
    spectrum = np.abs(np.fft.rfft(example("two_speakers_reference2.flac", rate), len(voice)))
    smooth = np.convolve(spectrum, np.ones(200) / 200, "same")
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, len(smooth))
    hiss = np.fft.irfft(smooth * np.exp(1j * phase), len(voice)).astype(np.float32)
    mixture = voice + hiss * np.float32(np.std(voice) / np.std(hiss))
    estimate, reference, noisy = (
        torch.from_numpy(wave)
        for wave in (process_array(mixture, rate, [model], rate, Options())[0, 0], voice, mixture)
    )
    return float(si_sdr(estimate, reference) - si_sdr(noisy, reference))


def verification(model: Model) -> float:
    """Compute how often (%) two crops of one speaker are more similar than two of different speakers; of eight."""
    assert isinstance(model, SpeakerEncoder)
    crops = []
    for name in ("carl", "emma", "john", "ruth"):
        for speed in (0.85, 1.18):  # turns one speaker into two: pitch and formants change
            waves = [example(f"voices/{split}/{name}/1.ogg", round(16000 / speed)) for split in ("valid", "train")]
            crops += [wave[start : start + 16000] for wave in waves for start in (4000, 12000)]
    with torch.no_grad():
        embeddings = model.embed(torch.from_numpy(np.stack(crops)), 16000)
    cosines = embeddings @ embeddings.T
    speaker = torch.arange(len(crops)) // 4
    same, itself = speaker[:, None] == speaker, torch.eye(len(crops), dtype=torch.bool)
    return 100 * float((cosines[same & ~itself][:, None] > cosines[~same]).float().mean())


def melody(rate: int, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """Two voices of plucked notes of a scale, (T,)."""
    wave = np.zeros(round(seconds * rate), np.float32)
    for octave, note_s in ((110.0, 0.5), (440.0, 0.25)):
        time = np.arange(2 * round(note_s * rate)) / rate
        for start in range(0, len(wave) - len(time), round(note_s * rate)):
            hz = octave * 2 ** (generator.choice([0, 2, 4, 7, 9, 12]) / 12)
            note = sum(np.sin(2 * np.pi * k * hz * time) * np.exp(-k * time / note_s) / k for k in range(1, 9))
            wave[start : start + len(time)] += np.float32(0.1) * note
    return wave


def rustle(rate: int, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """Noise with random bursts, (T,)."""
    wave = generator.standard_normal(round(seconds * rate)).astype(np.float32)
    gain = np.repeat(10 ** generator.uniform(-1, 0, round(10 * seconds)), rate // 10)
    return np.float32(0.1) * wave * gain.astype(np.float32)


def classification(model: Model) -> float:
    """Compute the mean probability (%) of what it is for windows of 2 s, of eight voices, melodies and noises each."""
    rate, size, generator = model.spec.in_rate, model.spec.window, np.random.default_rng(0)
    voices = [
        f"voices/{split}/{name}/1.ogg" for split in ("train", "valid") for name in ("carl", "emma", "john", "ruth")
    ]
    waves = [
        [example(name, rate) for name in voices],
        [melody(rate, 4.0, generator) for _ in range(8)],
        [rustle(rate, 4.0, generator) for _ in range(8)],
    ]
    shares = []
    for kind, own in enumerate(waves):
        windows = torch.cat([torch.from_numpy(wave).unfold(0, size, size) for wave in own])
        with torch.no_grad():
            shares.append(100 * float(model(windows[:, None]).softmax(1)[:, kind].mean()))
    return sum(shares) / len(shares)


def restoration(model: Model) -> float:
    """Compute the mean SI-SDR in dB above the band of perfect estimates, for two turns that overlap by half."""
    rate, low_rate = 48000, 16000 if model.spec.cutoff_hz > 4000 else 8000

    def low(wave: np.ndarray) -> np.ndarray:
        return soxr.resample(soxr.resample(wave, rate, low_rate), low_rate, rate)[: len(wave)].astype(np.float32)

    def highs(waves: Tensor) -> Tensor:
        return torch.stack([wave - torch.from_numpy(low(wave.numpy())) for wave in waves])

    wave = example("narrowband_reference.flac", rate)
    other = 0.8 * soxr.resample(wave[::-1].copy(), rate, 40000)  # reversed, and higher
    sources = np.zeros((2, 3 * rate), np.float32)
    sources[0, : 2 * rate] = wave[rate // 4 : rate // 4 + 2 * rate]
    sources[1, rate:] = other[rate // 4 : rate // 4 + 2 * rate]
    inputs = torch.from_numpy(np.stack([sources.sum(0), *map(low, sources)]))
    network = model.fitted(rate, 2)
    with torch.no_grad():
        estimates = network(F.pad(inputs, (network.spec.context, network.spec.context))[None])[0, :, 0]
    return float(si_sdr(highs(estimates), highs(torch.from_numpy(sources))).mean())


def upsampling(model: Model) -> float:
    """Compute the LSD between 4.4 and 10.5 kHz of a recording that is upsampled from 8 kHz."""
    narrow, reference = example("narrowband.wav", 8000), example("narrowband_reference.flac", 48000)
    estimate = Pipeline((model,), 48000, Options()).array(narrow, 8000)[0, 0]
    length = min(len(estimate), len(reference))
    pair = (torch.from_numpy(wave[:length]) for wave in (estimate, reference))
    return float(lsd(*pair, low=4400 / 24000, high=10500 / 24000))


MEASURES: dict[str, Callable[[Model], float]] = {
    "separate": separation,
    "embed": verification,
    "classify": classification,
    "separate-sr": restoration,
    "upsample": upsampling,
}


def cards() -> dict[str, tuple[float, str]]:
    """Read the figure and its metric for each bundled model from the table in weights/README.md."""
    text = (catalogue.folder() / "README.md").read_text(encoding="utf-8")
    table = text.split("## On the examples", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\w+) \| ([-.\d]+)( dB)? (SI-SDRi|SI-SDR|LSD|%)\W", table, re.MULTILINE)
    return {name: (float(value), unit) for name, value, _, unit in rows}


def is_as_good(name: str, figure: float) -> bool:
    """Return whether a figure is as good as that on the card, within the margin; a lower LSD is better."""
    expected, metric = cards()[name]
    return figure < expected + MARGINS[metric] if metric == "LSD" else figure > expected - MARGINS[metric]


def test_every_bundled_model_has_a_figure() -> None:
    assert list(cards()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_bundled_model_is_worse_than_its_card(name: str) -> None:
    model = store.load_model(name)
    figure = MEASURES[model.spec.task](model)
    assert is_as_good(name, figure), f"{name}: {figure:.3f}, on its card {cards()[name]}"


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_half_of_its_weights_is_worse_than_its_card(name: str) -> None:
    model, generator = store.load_model(name), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.mul_(torch.rand(parameter.shape, generator=generator) < 0.5)
    assert not is_as_good(name, MEASURES[model.spec.task](model))


@pytest.mark.parametrize("name", ["spectral_bwe", "spectral_bwe_large"])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050])
def test_the_restored_band_leaves_what_lies_below_the_cutoff(name: str, rate: int) -> None:
    """As far as the cutoff is detected right; the recording has a noise floor up to its highest frequency."""
    reference = example("narrowband_reference.flac", 48000)
    noise = np.random.default_rng(0).standard_normal(len(reference)).astype(np.float32)
    wave = soxr.resample(reference + 1e-3 * noise, 48000, rate)
    audio, report = UpsampleOptions(48000, name).pipeline().in_memory(ArrayReader(wave, rate))
    output, cutoff = audio[0, 0], (report.cutoff_hz or 0.0) / 24000
    resampled = soxr.resample(wave, rate, 48000)[: len(output)]
    pair = [torch.from_numpy(np.ascontiguousarray(x)) for x in (output[: len(resampled)], resampled)]
    assert lsd(*pair, high=0.9 * cutoff) < 0.05
    assert lsd(*pair, low=1.1 * cutoff) > 1.0


def gated(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Speech (T,) at ``rate`` Hz that a noise gate mutes for 0.4 s of each second, and where it is silent at 48 kHz.

    The first 60 ms of a pause do not count as silent, nor the last ones: a frame, and the ringing of resamplers.
    """
    voice = example("narrowband_reference.flac", rate)
    seconds = np.arange(len(voice)) / rate % 1
    fine = np.arange(len(voice) * 48000 // rate) / 48000 % 1
    return voice * (seconds < 0.6).astype(np.float32), (fine > 0.66) & (fine < 0.94)


@pytest.mark.parametrize("name", ["spectral_bwe", "spectral_bwe_large"])
def test_digital_silence_between_words_stays_silent(name: str) -> None:
    wave, silent = gated(16000)
    output = UpsampleOptions(48000, name).pipeline().array(wave, 16000)[0, 0]
    assert np.abs(output[: len(silent)][silent]).max() < 1e-7
    assert np.abs(output).max() > 0.1


@pytest.mark.parametrize("name", ["spectral_bwe", "spectral_bwe_large"])
@pytest.mark.parametrize("peak_db", [-60.0, -90.0])
def test_a_quiet_floor_between_words_is_no_louder_above_the_cutoff_than_below(name: str, peak_db: float) -> None:
    wave, silent = gated(16000)
    floor = np.random.default_rng(0).uniform(-1, 1, len(wave)) * 10 ** (peak_db / 20)
    output = UpsampleOptions(48000, name, 8000.0).pipeline().array((wave + floor).astype(np.float32), 16000)[0, 0]
    frames = torch.from_numpy(output[: len(silent)]).unfold(0, 1024, 512)
    power = torch.fft.rfft(frames * torch.hann_window(1024)).abs().square()
    power = power[torch.from_numpy(silent).unfold(0, 1024, 512).all(1)].mean(0)
    below, above = power[slice(20, 150)].mean(), power[slice(190, 430)].mean()  # to 7 kHz, and from 8.9 to 20 kHz
    assert above < 1.5 * below
