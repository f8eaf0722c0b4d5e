"""audio/write.py: the output gate, formats, and atomic files."""

from __future__ import annotations

import errno
import io
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import noise, tone

from audiosr_cli.audio.formats import OutputFormat, choose_format
from audiosr_cli.audio.write import AudioWriter, Gate
from audiosr_cli.errors import OutputError, SampleError

PCM16 = OutputFormat("wav", "PCM_16", 16000, 1)


def write(
    path: Path, output_format: OutputFormat, wave: np.ndarray, clip: str = "warn", gain: float | None = None
) -> AudioWriter:
    with AudioWriter(path, output_format, clip) as writer:
        for i in range(0, wave.shape[1], 333):
            writer.write(wave[:, i : i + 333])
        writer.finish(1 / max(1.0, writer.gate.peak) if gain is None and clip == "rescale" else gain or 1.0)
        writer.commit()
    return writer


def test_quantiser_rounds_and_never_wraps() -> None:
    gate = Gate(PCM16, "warn", "a")
    values = np.array([[0.4, 0.6, -0.4, -0.6, 1.5, 32767, 40000, -40000]], np.float32) / 32768
    np.testing.assert_array_equal(gate(values), [[0, 1, 0, -1, 2, 32767, 32767, -32768]])
    assert gate.clipped == 2
    np.testing.assert_array_equal(gate(np.array([[1.0, -1.0]], np.float32)), [[32767, -32768]])
    assert gate.clipped == 2  # full scale itself is not clipped


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_an_error_with_its_position(bad: float) -> None:
    gate = Gate(PCM16, "warn", "out.wav")
    gate(np.zeros((1, 16000), np.float32))
    wave = np.zeros((1, 10), np.float32)
    wave[0, 4] = bad
    with pytest.raises(SampleError, match=r"out\.wav: sample 16004 \(1\.000 s\)"):
        gate(wave)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
@pytest.mark.parametrize("container", ["wav", "flac", "aiff", "caf", "w64"])
def test_integers_are_written_bit_exact(subtype: str, container: str, tmp_path: Path) -> None:
    output_format = choose_format(container, None, subtype, 16000, 2)
    bits = {"PCM_16": 16, "PCM_24": 24}.get(output_format.subtype, 24)
    wave = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 4000)) / 2.0 ** (bits - 1)
    write(tmp_path / "a", output_format, wave.astype(np.float32))
    output, rate = soundfile.read(tmp_path / "a", always_2d=True)
    assert rate == 16000
    np.testing.assert_array_equal(output.T, wave)


@pytest.mark.parametrize(("container", "rate"), [("ogg", 44100), ("mp3", 44100), ("opus", 48000)])
def test_lossy_formats_are_close_to_the_input(container: str, rate: int, tmp_path: Path) -> None:
    wave = tone(rate, 440, rate)
    write(tmp_path / "a", choose_format(container, None, "PCM_16", rate, 1), wave)
    output, made_rate = soundfile.read(tmp_path / "a", always_2d=True)
    assert made_rate == rate
    assert np.abs(output.T[:, : rate // 2] - wave[:, : rate // 2]).max() < 0.05


def test_clip_policies(tmp_path: Path) -> None:
    wave = tone(1000, level=2.0)
    assert write(tmp_path / "a.wav", PCM16, wave).gate.clipped > 100
    with pytest.raises(SampleError, match="--clip"):
        write(tmp_path / "b.wav", PCM16, wave, "error")
    assert not (tmp_path / "b.wav").exists()
    write(tmp_path / "c.wav", PCM16, wave, "rescale")
    output, _ = soundfile.read(tmp_path / "c.wav", dtype="float32", always_2d=True)
    np.testing.assert_allclose(output.T, wave / np.abs(wave).max(), atol=1 / 32768)
    write(tmp_path / "d.wav", OutputFormat("wav", "FLOAT", 16000, 1), wave)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "d.wav", dtype="float32")[0], wave[0])


def test_an_error_of_reading_the_spool_is_an_output_error(tmp_path: Path) -> None:
    class Unreadable(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with AudioWriter(tmp_path / "a.wav", PCM16, "rescale") as writer:
        writer.write(tone(100))
        writer._spool = Unreadable()
        with pytest.raises(OutputError, match=r"a\.wav: cannot be written: Input/output error"):
            writer.finish()


def test_target_is_unchanged_before_commit_and_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), AudioWriter(target, PCM16) as writer:
        writer.write(noise(1000))
        writer.finish()
        assert target.read_bytes() == b"old"
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert target.read_bytes() == b"old"


def test_an_encoder_that_cannot_start_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"old")
    with (
        pytest.raises(OutputError, match="cannot be written as mp3"),
        AudioWriter(tmp_path / "a.mp3", OutputFormat("mp3", "MPEG_LAYER_III", 1000, 1)),
    ):
        pass
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.mp3", b"old")]


def test_an_encoder_that_cannot_be_closed_leaves_no_temporary_file(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    encoders: list[Any] = []
    with (
        pytest.raises(OutputError, match="Input/output error"),
        pytest.MonkeyPatch.context() as patch,
        AudioWriter(tmp_path / "a.ogg", OutputFormat("ogg", "VORBIS", 16000, 1)) as writer,
    ):
        encoders.append(writer._sink)
        patch.setattr(encoders[0]._sound, "close", fail)
    assert list(tmp_path.iterdir()) == []
    encoders[0].abort()


def test_vorbis_takes_one_very_long_block(tmp_path: Path) -> None:
    """3 million frames in one write overflow libsndfile's stack and would end the test run."""
    with AudioWriter(tmp_path / "a.ogg", choose_format("ogg", None, "PCM_16", 48000, 1)) as writer:
        writer.write(tone(3_000_000, 440, 48000))
        writer.finish()
        writer.commit()
    assert soundfile.info(tmp_path / "a.ogg").frames == 3_000_000


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "caf", "m4a", "mp3", "opus", "mkv"])
@pytest.mark.parametrize("missing", [1, 500, 3000])
def test_a_disk_that_fills_up_keeps_the_old_file(container: str, missing: int, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk."""
    output_format = choose_format(container, None, "PCM_16", 16000, 1)
    write(tmp_path / "whole", output_format, noise(16000))
    size = (tmp_path / "whole").stat().st_size
    (tmp_path / "a").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, hard))
    try:
        with pytest.raises(OutputError, match=r"was not written completely|cannot be written"):
            write(tmp_path / "a", output_format, noise(16000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "whole"]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"), AudioWriter(tmp_path / "no" / "a.wav", PCM16):
        pass
