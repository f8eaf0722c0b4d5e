"""audio/encoders/: lengths, exactness, channels, tags and cover art of encoded files."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from conftest import noise, tone
from media_files import decode, picture, tags_of

from audiosr_cli.audio.encoders import media as media_write
from audiosr_cli.audio.encoders.disk_file import DiskFile
from audiosr_cli.audio.formats import FORMATS, OutputFormat, choose_format
from audiosr_cli.audio.metadata.read import Metadata
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.write import AudioWriter
from audiosr_cli.errors import OutputError

LOSSY = ("ogg", "opus", "mp3", "m4a", "mp4", "mov", "mkv", "webm")
TAGS = {
    "title": "Ünï 日本",
    "artist": "Ada",
    "album": "Talks",
    "date": "2026",
    "genre": "Speech",
    "comment": "two\nlines",
}


def write(path: Path, output_format: OutputFormat, wave: np.ndarray, metadata: Metadata | None = None) -> list[str]:
    with AudioWriter(path, output_format, metadata=metadata) as writer:
        for i in range(0, wave.shape[1], 3333):
            writer.write(wave[:, i : i + 3333])
        writer.finish()
        writer.commit()
    return writer.notes


def read(path: Path) -> np.ndarray:
    if path.suffix == ".ogg":  # FFmpeg drops the last samples of libvorbis' files
        return soundfile.read(path, dtype="float32", always_2d=True)[0].T
    return decode(path)[0]


@pytest.mark.parametrize("frames", [700, 1024, 48001])
@pytest.mark.parametrize("container", [*LOSSY, "flac"])
def test_length_and_position_are_exact_to_the_sample(container: str, frames: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{container}"
    wave = 0.5 * tone(frames, 440, 48000)
    write(path, choose_format(container, None, "", 48000, 1), wave)
    output = read(path)
    assert output.shape == (1, frames)
    steady = slice(frames // 4, 3 * frames // 4)  # codecs smear the onset
    assert np.abs(output[:, steady] - wave[:, steady]).max() < (0.05 if frames > 10000 else 0.2)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
@pytest.mark.parametrize("container", ["mp3", "m4a", "mkv", "mov"])
def test_lengths_are_exact_at_other_rates(container: str, rate: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{container}"
    write(path, choose_format(container, None, "", rate, 2), np.repeat(tone(20011, 440, rate), 2, axis=0) / 2)
    assert read(path).shape == (2, 20011)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("container", ["flac", "mov", "mkv"])
def test_lossless_media_are_bit_exact(container: str, subtype: str, tmp_path: Path) -> None:
    bits = int(subtype[-2:])
    wave = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 30001)) / 2.0 ** (bits - 1)
    write(tmp_path / f"a.{container}", choose_format(container, None, subtype, 96000, 2), wave.astype(np.float32))
    np.testing.assert_array_equal(read(tmp_path / f"a.{container}"), wave)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("container", ["m4a", "opus", "flac"])
def test_every_channel_stays_in_its_place_with_its_band(container: str, channels: int, tmp_path: Path) -> None:
    """Without known positions none may become an LFE channel, of which codecs keep the lowest frequencies only."""
    rate, path = 48000, tmp_path / f"a.{container}"
    frequencies = 1000.0 * np.arange(1, channels + 1)
    time = np.arange(rate // 2) / rate
    wave = 0.3 * np.sin(2 * np.pi * frequencies[:, None] * time).astype(np.float32)
    write(path, choose_format(container, None, "PCM_16", rate, channels), wave)
    spectrum = np.abs(np.fft.rfft(decode(path)[0]))
    np.testing.assert_allclose(spectrum.argmax(1) * 2.0, frequencies, atol=2)
    np.testing.assert_allclose(spectrum.max(1), np.abs(np.fft.rfft(wave)).max(1), rtol=0.1)


@pytest.mark.parametrize(
    ("mask", "layout"),
    [(0x7, "3.0"), (0x33, "quad"), (0x37, "5.0"), (0x3F, "5.1"), (0x60F, "5.1(side)"), (0x63F, "7.1")],
)
@pytest.mark.parametrize("container", ["m4a", "flac", "opus"])
def test_known_speaker_positions_are_written(container: str, mask: int, layout: str, tmp_path: Path) -> None:
    channels, path = mask.bit_count(), tmp_path / f"a.{container}"
    frequencies = 40.0 * np.arange(1, channels + 1)  # an LFE channel keeps them
    wave = (0.3 * np.sin(2 * np.pi * frequencies[:, None] * np.arange(48000) / 48000)).astype(np.float32)
    write(path, choose_format(container, None, "PCM_16", 48000, channels), wave, Metadata(channel_mask=mask))
    np.testing.assert_allclose(np.abs(np.fft.rfft(decode(path)[0])).argmax(1), frequencies, atol=2)
    with av.open(str(path)) as file:
        name = file.streams.audio[0].layout.name
    if container != "flac":
        layout = layout.removesuffix("(side)")
    assert name == layout or (container, layout) == ("opus", "5.0")


def test_speaker_positions_without_a_name_in_a_codec_are_left_out_and_said(tmp_path: Path) -> None:
    for container, mask in (("m4a", 0x603), ("opus", 0x37)):
        path = tmp_path / f"a.{container}"
        channels = mask.bit_count()
        metadata = Metadata(channel_mask=mask)
        notes = write(path, choose_format(container, None, "", 48000, channels), noise(4000, channels), metadata)
        assert notes == [f"{path}: {container} files cannot hold these speaker positions"]
        assert read(path).shape == (channels, 4000)


@pytest.mark.parametrize("container", LOSSY)
def test_default_bitrates_keep_the_band_to_18_khz(container: str, tmp_path: Path) -> None:
    wave = noise(48000) * 0.3
    write(tmp_path / f"a.{container}", choose_format(container, None, "", 48000, 1), wave)
    power = np.abs(np.fft.rfft(read(tmp_path / f"a.{container}"))) ** 2
    original = np.abs(np.fft.rfft(wave)) ** 2
    band = slice(16000, 18000)  # Hz, as the wave lasts a second
    assert abs(10 * np.log10(power[:, band].sum() / original[:, band].sum())) < 1.5


def test_bitrate_sets_the_size(tmp_path: Path) -> None:
    wave = noise(96000)
    for container in ("mp3", "m4a", "opus"):
        for bitrate in (64_000, 128_000):
            path = tmp_path / f"{bitrate}.{container}"
            write(path, choose_format(container, None, "", 48000, 1, bitrate), wave)
            assert path.stat().st_size * 8 / 2 == pytest.approx(bitrate, rel=0.25)


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
@pytest.mark.parametrize("container", ["flac", *LOSSY])
def test_tags_and_cover_art_are_written(container: str, codec: str, tmp_path: Path) -> None:
    path, cover = tmp_path / f"a.{container}", picture(codec, 300, 200)  # more than a page of an Ogg file
    output_format = choose_format(container, None, "PCM_16" if container == "flac" else "", 48000, 1)
    notes = write(path, output_format, noise(9000), Metadata(tags=TAGS, cover=cover))
    tags, found = tags_of(path)
    assert TAGS.items() <= tags.items()
    if container in ("mov", "webm"):
        assert found is None
        assert notes == [f"{path}: the cover art has no place in {container} files, and is left out"]
    else:
        assert (found, notes) == (cover, [])
    assert read(path).shape == (1, 9000)


@pytest.mark.parametrize("container", ["m4a", "mp4", "mov"])
def test_tags_without_a_place_are_named_and_all_others_are_kept(container: str, tmp_path: Path) -> None:
    known = media_write._MOV_TAGS if container == "mov" else media_write._MP4_TAGS
    texts = {"track": "3/9", "disc": "1/2"}
    given = {name: texts.get(name, name) for name in known}
    path = tmp_path / f"a.{container}"
    output_format = choose_format(container, None, "", 48000, 1)
    notes = write(path, output_format, noise(4000), Metadata(tags={**given, "reel": "7", "scene": "2"}))
    assert given.items() <= tags_of(path)[0].items()
    assert notes == [f"{path}: {container} files have no place for the tags reel, scene; they are left out"]


@pytest.mark.parametrize("container", ["flac", "ogg"])
def test_a_cover_that_is_no_picture_is_named(container: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{container}"
    metadata = Metadata(cover=b"\xff\xd8\xff and nothing of a JPEG")
    notes = write(path, choose_format(container, None, "PCM_16", 48000, 1), noise(4000), metadata)
    assert notes == [f"{path}: the cover art is neither JPEG nor PNG, and is left out"]
    assert tags_of(path)[1] is None


@pytest.mark.parametrize("container", [name for name in FORMATS if name != "wav"])
def test_two_runs_write_the_same_bytes(container: str, tmp_path: Path) -> None:
    output_format = choose_format(container, None, "PCM_16" if "mov" not in container else "", 48000, 2)
    for name in ("a", "b"):
        write(tmp_path / name, output_format, noise(20000, 2), Metadata(tags=TAGS, cover=picture()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_mp4_files_can_be_played_before_they_are_complete(tmp_path: Path) -> None:
    write(tmp_path / "a.m4a", choose_format("m4a", None, "", 48000, 1), noise(20000))
    data = (tmp_path / "a.m4a").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("channels", [7, 8])
def test_channels_of_many_planes_are_read_back(channels: int, tmp_path: Path) -> None:
    """PyAV crashes on the planes of eight channels."""
    path, frequencies = tmp_path / "a.m4a", 1000.0 * np.arange(1, channels + 1)
    wave = 0.3 * np.sin(2 * np.pi * frequencies[:, None] * np.arange(24000) / 48000).astype(np.float32)
    write(path, choose_format("m4a", None, "", 48000, channels), wave)
    with AudioReader(path) as reader:
        output = np.concatenate(list(reader.blocks()), axis=1)[:, :24000]
    np.testing.assert_allclose(np.abs(np.fft.rfft(output)).argmax(1) * 2.0, frequencies, atol=2)


def test_an_output_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    for container in ("m4a", "ogg", "flac"):
        with (
            pytest.raises(ZeroDivisionError),
            AudioWriter(tmp_path / "a", choose_format(container, None, "PCM_16", 48000, 1)) as writer,
        ):
            writer.write(noise(30000))
            raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_output_without_samples_is_a_valid_file_or_an_error(tmp_path: Path) -> None:
    for container in FORMATS:
        path = tmp_path / f"empty.{container}"
        try:
            write(path, choose_format(container, None, "PCM_16", 48000, 1), np.zeros((1, 0), np.float32))
        except OutputError as error:
            assert str(path) in str(error)
            assert not path.exists()


def test_a_disk_file_writes_all_or_remembers_why_not(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device")

    class Device:
        def __init__(self) -> None:
            self.content = b""

        def write(self, data: memoryview) -> int:
            if len(self.content) >= 7:
                raise full
            self.content += bytes(data[:3])
            return len(data[:3])

        def close(self) -> None:
            pass

    disk = DiskFile(tmp_path / "a")
    disk._file.close()
    disk._file = device = Device()  # type: ignore[assignment]
    assert disk.write(b"abcdefg") == 7
    disk.check()
    assert device.content == b"abcdefg"
    assert disk.write(b"hij") == 3
    with pytest.raises(OSError, match="No space left"):
        disk.check()
    disk.close()
