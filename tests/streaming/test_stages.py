"""streaming/stages.py: models as stages of a stream of blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import halves, noise, restorer

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.errors import InputError, ModelError
from audiosr_cli.models import build, make_config
from audiosr_cli.models.runner import ModelRunner
from audiosr_cli.streaming import stages
from audiosr_cli.streaming.in_memory import process_array, process_in_memory
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.stages import make_stages, stream

EXAMPLE = Path(__file__).parents[2] / "examples" / "two_speakers.wav"
BF16_POWER = 1e-3  # of the output's: -30 dB, where tracks are 6 dB above what they should not have

OPTIONS = Options()


@pytest.mark.parametrize("models", [1, 2])
def test_block_size_does_not_change_the_output(models: int) -> None:
    chain = [halves(), halves(16000)][:models]
    wave = noise(20_011, 2)

    def run(block: int) -> np.ndarray:
        chained = make_stages(chain, 22050, 44100, 2, OPTIONS)
        blocks = (wave[:, i : i + block] for i in range(0, wave.shape[1], block))
        return np.concatenate(list(stream(blocks, chained)), axis=1)

    runs = [run(block) for block in (23, 509, 44100)]
    assert runs[0].shape == (2 * 2**models, 40_022)
    assert all(np.array_equal(output, runs[0]) for output in runs)


def test_block_size_does_not_change_the_output_of_a_restorer() -> None:
    chain, wave = [halves(), restorer()], noise(20_011, 2)

    def run(block: int) -> np.ndarray:
        chained = make_stages(chain, 22050, 44100, 2, OPTIONS)
        blocks = (wave[:, i : i + block] for i in range(0, wave.shape[1], block))
        return np.concatenate(list(stream(blocks, chained)), axis=1)

    runs = [run(block) for block in (23, 509, 44100)]
    assert runs[0].shape == (4, 40_022)
    assert all(np.array_equal(output, runs[0]) for output in runs)


@pytest.mark.parametrize("channels", [1, 3])
def test_threads_do_not_change_the_output(channels: int) -> None:
    """A separator with tracking and a restorer, both with resampling."""
    chain, wave = [halves(), restorer()], noise(90_011, channels)
    runs = [process_array(wave, 22050, chain, 44100, replace(OPTIONS, threads=threads)) for threads in (1, 2, 5)]
    assert runs[0].shape == (2, channels, 180_022)
    assert all(np.array_equal(output, runs[0]) for output in runs)


@pytest.mark.parametrize("name", ["spectral2", "spectral2_narrow", "spectral_bwe"])
def test_bf16_changes_little(name: str) -> None:
    wave, _ = soundfile.read(EXAMPLE, dtype="float32", frames=32000)
    exact, rounded = (
        process_array(wave, 16000, [load_model(name)], 16000, replace(OPTIONS, bf16=b)) for b in (False, True)
    )
    error = rounded - exact
    assert 0 < np.square(error).mean() < BF16_POWER * np.square(exact).mean()


def test_a_restorer_refuses_another_number_of_sources() -> None:
    with pytest.raises(ModelError, match="restores 2 sources at 16000 Hz, but the separator returns 3 at"):
        process_array(noise(100), 16000, [halves(8000, 3), restorer(16000, 2)], 16000, OPTIONS)


def test_a_stereo_model_refuses_mono() -> None:
    model = build("wave_u_net", make_config("wave_u_net", {"channels": 2, "depth": 2, "filters": 2, "core": 64}))
    with pytest.raises(InputError, match="takes 2 channels, but the recording has 1"):
        process_array(noise(100), 22050, [model], 22050, OPTIONS)


class Remote(ModelRunner):
    """Runs a model on a device with memory for ``room`` windows."""

    room = 0

    def _call(self, x: torch.Tensor, position: torch.Tensor | None = None) -> torch.Tensor:
        if self.model.device.type == "cuda" and len(x) > self.room:
            raise torch.cuda.OutOfMemoryError
        return self.call(x, position)


@pytest.mark.parametrize(
    ("room", "remedies"), [(4, []), (1, ["continuing with --batch 1"]), (0, ["continuing on the CPU"])], ids=str
)
def test_without_cuda_memory_batches_shrink_then_the_cpu_computes(
    room: int, remedies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wave = halves(), noise(20_011)
    expected = process_array(wave, 8000, [model], 8000, Options(batch=4))
    places = [torch.device("cuda")]
    monkeypatch.setattr(type(model), "device", property(lambda _: places[-1]))
    monkeypatch.setattr(type(model), "to", lambda self, name: places.append(torch.device(name)))
    monkeypatch.setattr(stages, "ModelRunner", Remote)
    monkeypatch.setattr(Remote, "room", room)
    first = stages.make_stages([model], 8000, 8000, 1, Options(batch=4))
    output = np.concatenate(list(stream([wave], first)), axis=1)
    np.testing.assert_allclose(output.reshape(expected.shape), expected, atol=1e-6)
    assert first[0].runner is not None
    assert [line.split("; ")[1] for line in first[0].runner.warnings] == remedies
    again = stages.make_stages([model], 8000, 8000, 1, Options(batch=4))
    list(stream([wave], again))
    assert room or not again[0].runner.warnings  # the model stays on the CPU, without another warning


@pytest.mark.parametrize(
    ("device", "native", "expected"),
    [("cuda", False, False), ("cuda", True, True), ("cuda:1", False, False), ("cpu", False, True)],
)
def test_bf16_follows_the_device_that_a_model_is_on(
    device: str, native: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model on the CPU, because of lack of memory or because of --device cpu."""
    monkeypatch.setattr(stages, "computes_bf16", lambda _: native)
    (stage,) = make_stages([halves()], 8000, 8000, 1, Options(device, bf16=True))
    assert stage.runner is not None
    assert stage.runner.bf16 == expected


def test_lack_of_cpu_memory_is_a_memory_error() -> None:
    class Full(ModelRunner):
        def _call(self, x: torch.Tensor, position: torch.Tensor | None = None) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError

    with pytest.raises(MemoryError):
        Full(halves(), 1)(noise(100))


def hummed(frames: int) -> np.ndarray:
    """Noise with an offset and hum."""
    time = np.arange(frames) / 16000
    return (noise(frames, 1) + 0.2 + 0.3 * np.cos(2 * np.pi * 50 * time)).astype(np.float32)


def test_dc_and_hum_are_left_to_the_residual() -> None:
    wave = hummed(100_000)
    options = replace(OPTIONS, hum="remove")
    *sources, residual = process_array(wave, 16000, [halves(16000)], 16000, options, residual=True)
    assert all(abs(source.mean()) < 1e-3 for source in sources)
    assert residual.mean() == pytest.approx(0.2, abs=1e-3)
    np.testing.assert_allclose(sum(sources) + residual, wave, atol=1e-6)


def test_dc_and_hum_are_shared_equally() -> None:
    wave = hummed(100_000)
    shared = process_array(wave, 16000, [halves(16000)], 16000, replace(OPTIONS, hum="share"))
    np.testing.assert_allclose(shared.sum(0), wave, atol=1e-5)
    assert [source.mean() for source in shared] == pytest.approx([0.1, 0.1], abs=1e-3)


@pytest.mark.parametrize("hum", ["remove", "share"])
def test_block_size_does_not_change_filtered_output(hum: str) -> None:
    wave = hummed(150_011)

    def run(block: int) -> np.ndarray:
        chained = make_stages([halves(16000), restorer()], 16000, 44100, 1, replace(OPTIONS, hum=hum))
        blocks = (wave[:, i : i + block] for i in range(0, wave.shape[1], block))
        return np.concatenate(list(stream(blocks, chained)), axis=1)

    runs = [run(block) for block in (5000, 44100)]
    assert runs[0].shape[1] == round(150_011 * 44100 / 16000)
    assert np.array_equal(*runs)


def test_hum_is_noted() -> None:
    reader = ArrayReader(hummed(100_000)[0], 16000)
    report = process_in_memory(reader, [halves(16000)], 16000, replace(OPTIONS, hum="remove"))[1]
    assert any("multiples of 50 Hz" in note for note in report.notes)


def test_channels_that_cancel_are_reported() -> None:
    wave = noise(20_000, 1)
    options = replace(OPTIONS, channels="mix")
    for other, cancels in ((-wave, True), (-0.9 * wave, True), (wave, False), (noise(20_000, 2)[1:], False)):
        reader = ArrayReader(np.concatenate([wave, other]), 16000)
        report = process_in_memory(reader, [], 16000, options)[1]
        assert any("cancel" in line for line in report.warnings) == cancels
