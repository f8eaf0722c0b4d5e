"""Every format: read, as long as FFmpeg's own decoding, the same from a pipe, and truncation is reported."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from encoded_files import FORMATS, format_table, fuzz_media, mux, signal
from running import inside

import audiosr_cli
from audiosr_cli.audio.decoders import detect, libav
from audiosr_cli.audio.decoders.elementary import FrameReader
from audiosr_cli.audio.read import SUFFIXES, AudioReader
from audiosr_cli.errors import InputError

# G.722 has no header: a pipe cannot be recognised, nor a missing end noticed.
HEADERLESS = "G.722"


def read(path: Path | str, stream: int | None = None) -> tuple[AudioReader, np.ndarray]:
    with AudioReader(path, stream) as reader:
        return reader, np.concatenate([np.zeros((reader.channels, 0)), *reader.blocks(5000)], axis=1)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_is_read_whole_from_files_and_pipes_and_truncation_is_reported(form: Any, tmp_path: Path) -> None:
    row = format_table.examine(form, tmp_path, 1.2)
    assert row.title is not False
    assert row.frames == row.expected
    assert (row.pipe, row.reports_truncation) == (form.name != HEADERLESS, form.name != HEADERLESS)
    assert row.problems == [] or form.name == HEADERLESS
    assert (f".{form.suffix}" in SUFFIXES) == (form.suffix != "ts")  # more often TypeScript


def test_endless_tags_of_a_pipe_are_not_all_read_into_memory() -> None:
    class Tags:
        most = 0

        def head(self, count: int, start: int = 0) -> bytes:
            self.most = max(self.most, count)
            return (b"ID3\4\0\0\0\x20\0\0" + bytes(count))[: count - start]

    tags: Any = Tags()
    assert detect._skip_to_sound(tags) is None
    assert tags.most <= (1 << 25) + (1 << 20)


def test_an_audio_stream_of_an_unknown_format_needs_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libav, "is_available", lambda: False)
    (tmp_path / "a.mkv").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    with pytest.raises(InputError, match="needs PyAV"):
        AudioReader(tmp_path / "a.mkv", 2)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    mux(tmp_path / "a.m4a", signal(16000, 1, 0.5), 16000, "aac", container="ipod")
    (tmp_path / "a.m4a").rename(tmp_path / "a.wav")
    assert read(tmp_path / "a.wav")[0].subtype == "AAC"


@pytest.mark.parametrize(
    ("suffix", "codec", "subtype"),
    [
        ("m4a", "alac", "PCM_24"),
        ("wv", "wavpack", "PCM_16"),
        ("mov", "pcm_s24le", "PCM_24"),
        ("mp2", "mp2", "MPEG_LAYER_II"),
    ],
)
def test_formats_that_lose_nothing_have_the_subtype_of_their_samples(
    suffix: str, codec: str, subtype: str, tmp_path: Path
) -> None:
    mux(tmp_path / f"a.{suffix}", signal(44100, 1, 0.3), 44100, codec)
    assert read(tmp_path / f"a.{suffix}")[0].subtype == subtype


def test_the_default_audio_stream_is_read_and_said_and_another_can_be_picked(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    mux(path, signal(16000, 1, 0.5), 16000, "flac", streams=2)
    first, wave = read(path)
    assert "has 2 audio streams" in first.notes[0]
    assert "--audio-stream N" in first.notes[0]
    second, quieter = read(path, 2)
    assert second.notes == []
    np.testing.assert_allclose(quieter, wave / 2, atol=1e-4)
    with pytest.raises(InputError, match=r"--audio-stream 3: it has only 2"):
        AudioReader(path, 3)
    mux(tmp_path / "a.mp3", signal(16000, 1, 0.5), 16000, "libmp3lame")
    with pytest.raises(InputError, match=r"--audio-stream 2: it has only 1"):
        AudioReader(tmp_path / "a.mp3", 2)


def test_the_option_reaches_the_reader_from_the_command_and_from_python(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    mux(path, signal(16000, 1, 0.5), 16000, "flac", streams=2)
    plain = ("upsample", path, "--model", "none", "--rate", 24000, "-o")
    default = inside(*plain, tmp_path / "1.wav")
    other = inside(*plain, tmp_path / "2.wav", "--audio-stream", 2)
    assert b"has 2 audio streams" in default.stderr
    assert b"audio streams" not in other.stderr
    first, second = (read(tmp_path / f"{i}.wav")[1] for i in (1, 2))
    np.testing.assert_allclose(second, first / 2, atol=1e-4)
    result = audiosr_cli.upsample(path, rate=24000, model="none", audio_stream=2)
    np.testing.assert_allclose(result.audio, second, atol=1e-4)
    failed = inside(*plain, tmp_path / "3.wav", "--audio-stream", 3)
    assert (failed.returncode, b"--audio-stream 3: it has only 2" in failed.stderr) == (1, True)


def test_a_video_without_sound_is_refused(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(stream.encode())
    with pytest.raises(InputError, match="holds no sound"):
        AudioReader(tmp_path / "a.mp4")


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_files_that_name_other_files_are_refused(kind: str, tmp_path: Path) -> None:
    mux(tmp_path / "secret.mp3", signal(16000, 1, 0.5), 16000, "libmp3lame")
    (tmp_path / "list.mp3").write_text(PLAYLISTS[kind].format(target=tmp_path / "secret.mp3"))
    with pytest.raises(InputError, match="cannot be read as audio"):
        AudioReader(tmp_path / "list.mp3")


def test_without_pyav_libsndfile_reads_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libav, "is_available", lambda: False)
    for suffix, codec in (("mp3", "libmp3lame"), ("flac", "flac")):
        mux(tmp_path / f"a.{suffix}", signal(16000, 1, 0.5), 16000, codec)
        assert read(tmp_path / f"a.{suffix}")[1].shape == (1, 8000)
    mux(tmp_path / "a.m4a", signal(16000, 1, 0.5), 16000, "aac", container="ipod")
    with pytest.raises(InputError, match="pip install av"):
        AudioReader(tmp_path / "a.m4a")


def test_a_following_file_that_is_not_read_is_told(tmp_path: Path) -> None:
    for suffix, kind in (("aiff", "FORM"), ("au", ".snd")):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, np.zeros(101, np.int16), 16000)
        assert read(path)[0].warnings == []
        path.write_bytes(path.read_bytes() * 2)
        assert f"another file ({kind}) follows its end; only the first is read" in read(path)[0].warnings[0]


def test_files_that_follow_an_mp4_or_mp3_are_told_unless_they_are_read(tmp_path: Path) -> None:
    wave = signal(16000, 1, 0.5)
    mux(tmp_path / "a.m4a", wave, 16000, "aac", container="ipod")
    mux(tmp_path / "a.avi", wave, 16000, "pcm_s16le")
    mux(tmp_path / "a.mp3", wave, 16000, "libmp3lame")
    soundfile.write(tmp_path / "a.wav", signal(16000, 1, 5.0).T, 16000)
    for first, second, kind in (("m4a", "m4a", "MP4"), ("mp3", "wav", "RIFF"), ("avi", "avi", "")):
        content = (tmp_path / f"a.{first}").read_bytes()
        (tmp_path / "b").write_bytes(content + (tmp_path / f"a.{second}").read_bytes())
        reader, joined = read(tmp_path / "b")
        if kind:
            assert f"another file ({kind}) follows its end" in reader.warnings[0]
            assert joined.shape == read(tmp_path / f"a.{first}")[1].shape
        else:
            assert joined.shape[1] > 1.9 * read(tmp_path / f"a.{first}")[1].shape[1]
            assert reader.warnings == []


@pytest.mark.parametrize("head", [bytes(64), b"ID3\3\0\0\0\0\0\x0a" + bytes(10)])
def test_wav_behind_a_tag_or_zeros_is_read(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.arange(-50, 51, dtype=np.int16), 16000)
    path.write_bytes(head + path.read_bytes())
    np.testing.assert_array_equal(read(path)[1][0] * 32768, np.arange(-50, 51))


def test_mp3_in_free_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    mux(path, signal(44100, 1, 1.0), 44100, "libmp3lame")
    _, wave = read(path)
    frames = [bytearray(frame.data or b"") for frame in FrameReader(io.BytesIO(path.read_bytes()).read).frames()][1:]
    for frame in frames:
        frame[2] &= 0x0F  # without a bitrate
    path.write_bytes(b"".join(frames))
    reader, free = read(path)
    delay = 1105  # of encoder and decoder, which the tag in the first frame told
    assert free.shape[1] == 1152 * len(frames)
    np.testing.assert_allclose(free[:, delay : delay + 40_000], wave[:, :40_000], atol=1e-3)
    assert reader.warnings == []


def test_an_mp4_without_its_index_says_so(tmp_path: Path) -> None:
    mux(tmp_path / "a.m4a", signal(16000, 1, 1), 16000, "aac", container="ipod")
    content = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(InputError, match="its index"):
        AudioReader(tmp_path / "a.m4a")


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("opus", "libopus", {"container": "ogg"}),
        ("m4a", "aac", {"container": "ipod"}),
        ("mkv", "libopus", {}),
        ("ts", "aac", {}),
        ("wma", "wmav2", {"container": "asf", "bit_rate": 64000}),
    ],
)
def test_noise_in_the_middle_keeps_the_time_and_is_reported(
    suffix: str, codec: str, options: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, rate = tmp_path / f"a.{suffix}", 48000 if codec == "libopus" else 44100
    mux(path, signal(rate, 1, 12), rate, codec, **options)
    whole, wave = read(path)
    content = bytearray(path.read_bytes())
    middle, length = len(content) // 2, len(content) // 20
    content[middle : middle + length] = np.random.default_rng(1).bytes(length)
    path.write_bytes(content)
    reader, damaged = read(path)
    assert whole.warnings == []
    assert "damaged at" in reader.warnings[0]
    assert "silence" in reader.warnings[0]
    assert abs(damaged.shape[1] - wave.shape[1]) < rate / 1000
    np.testing.assert_allclose(damaged[:, -rate:], wave[:, -rate:], atol=0.02)
    assert capfd.readouterr() == ("", "")  # decoders say nothing themselves


def test_many_channels_of_floats_are_read(tmp_path: Path) -> None:
    """PyAV's own arrays of more than 8 channels may have one row too many, of memory that is not the frame's."""
    import av

    wave = signal(16000, 12, 0.5)
    with av.open(str(tmp_path / "a.wv"), "w") as output:
        stream = output.add_stream("wavpack", rate=16000, layout="12 channels")
        stream.format = "fltp"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T.reshape(1, -1)), "flt", "12 channels")
        frame.sample_rate, frame.pts = 16000, 0
        for ready in av.AudioResampler("fltp", "12 channels", 16000).resample(frame):
            output.mux(stream.encode(ready))
        output.mux(stream.encode(None))
    reader, samples = read(tmp_path / "a.wv")
    assert reader.subtype == "FLOAT"
    np.testing.assert_array_equal(samples, wave)


def test_mutated_files_neither_crash_nor_hang(tmp_path: Path) -> None:
    result = fuzz_media.run(60, 7, tmp_path, seconds=300)
    assert result.failures == []
    assert result.outcomes.total() == 60


def test_a_demuxer_that_never_ends_is_stopped_once_and_then_gets_nothing() -> None:
    empty = libav.ByteInput(lambda _: b"", "a.wma")
    circling = libav.FileInput(io.BytesIO(bytes(1000)), "a.wma")
    for source in (empty, circling):
        with pytest.raises(InputError, match="leads in circles"):
            for _ in range(1_000_000):
                source.read(1000)
                if isinstance(source, libav.FileInput):
                    source.seek(0)
        assert source.read(1000) == b""
    assert circling.seek(0) == -1
