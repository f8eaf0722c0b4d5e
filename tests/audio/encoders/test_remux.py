"""audio/encoders/remux.py: videos get new sound, and their pictures stay the same packets at the same times."""

from __future__ import annotations

import resource
import signal
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
from media_files import decode, make_video, tags_of, video_packets

from audiosr_cli.audio.encoders import remux
from audiosr_cli.audio.encoders.remux import VideoSource, has_video
from audiosr_cli.audio.formats import choose_format
from audiosr_cli.audio.metadata.read import Metadata
from audiosr_cli.audio.write import AudioWriter
from audiosr_cli.errors import OutputError

RATE = 48000
FORCED = 0x40  # AV_DISPOSITION_FORCED
MATROSKA_S = 0.0006  # its times are rounded to milliseconds


def replace_sound(
    source: Path, target: Path, wave: np.ndarray | None = None, rate: int = RATE, **options: Any
) -> list[str]:
    """Write ``source`` with new sound, by default its own, to ``target``; return the notes."""
    wave = decode(source)[0] if wave is None else wave
    output_format = choose_format(target.suffix[1:], None, "", rate, len(wave))
    with AudioWriter(target, output_format, source=source, **options) as writer:
        for i in range(0, wave.shape[1], 3000):
            writer.write(wave[:, i : i + 3000])
        writer.finish()
        writer.commit()
    return writer.notes


def click_s(path: Path) -> float:
    """Return when the click of ``make_video`` is played."""
    wave, start_s = decode(path)
    return start_s + int(np.argmax(np.abs(wave[0]) > 0.4)) / RATE


def streams_of(path: Path) -> list[tuple[str, str | None]]:
    with av.open(str(path)) as file:
        return [(stream.type, stream.language) for stream in file.streams]


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("container", "codec", "sound", "sound_at_s"),
    [
        ("mp4", "libx264", "aac", 0.0),
        ("mp4", "mpeg4", "aac", 0.25),
        ("mov", "mpeg4", "pcm_s16le", 0.0),
        ("matroska", "libx264", "aac", 0.1),
        ("avi", "mpeg4", "libmp3lame", 0.0),
    ],
)
def test_pictures_stay_the_same_packets_at_the_same_times(
    container: str, codec: str, sound: str, sound_at_s: float, target: str, tmp_path: Path
) -> None:
    source, output = tmp_path / "a", tmp_path / f"b.{target}"
    make_video(source, container, codec, sound, sound_at_s)
    assert replace_sound(source, output) == []
    before, after = video_packets(source), video_packets(output)
    assert len(before) == 25
    assert [packet[2:] for packet in after] == [packet[2:] for packet in before]
    times = np.array([packet[0] for packet in after]) - [packet[0] for packet in before]
    tolerance = MATROSKA_S if target == "mkv" else 1e-6 if container in ("mp4", "mov") else 0.001
    assert np.abs(times).max() <= tolerance
    assert click_s(output) == pytest.approx(click_s(source), abs=0.002)
    # Behind the start of an MP4 file, FFmpeg's muxer does not mark the 1024 samples with which AAC begins as padding.
    padding = 1024 if sound_at_s and target != "mkv" else 0
    assert decode(output)[0].shape[1] == pytest.approx(decode(source)[0].shape[1] + padding, abs=1)
    assert decode(output)[1] == pytest.approx(decode(source)[1] - padding / RATE, abs=0.001)


def test_clocks_of_broadcasts_start_at_zero(tmp_path: Path) -> None:
    source = tmp_path / "a.ts"
    make_video(source, "mpegts", "mpeg2video", "mp2")
    before = video_packets(source)
    with av.open(str(source)) as file:
        start_s = file.start_time / 1e6
    assert start_s > 0.01
    replace_sound(source, tmp_path / "b.mp4")
    after = video_packets(tmp_path / "b.mp4")
    assert [packet[2:] for packet in after] == [packet[2:] for packet in before]
    np.testing.assert_allclose([p[0] for p in after], [p[0] - start_s for p in before], atol=0.001)
    assert click_s(tmp_path / "b.mp4") == pytest.approx(click_s(source) - start_s, abs=0.002)


def test_sound_whose_first_packets_are_damaged_starts_where_it_should(tmp_path: Path) -> None:
    """The reader yields silence for them."""
    make_video(tmp_path / "a.mp4", sound_at_s=0.2)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    start_s = VideoSource(tmp_path / "a.mp4").start_s
    with av.open(str(tmp_path / "a.mp4")) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.size][:4]
    for packet in packets:
        assert packet.pos is not None
        data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    (tmp_path / "b.mp4").write_bytes(data)
    assert decode(tmp_path / "a.mp4")[1] == pytest.approx(start_s)
    assert VideoSource(tmp_path / "b.mp4").start_s == pytest.approx(start_s, abs=0.001)


def test_pictures_before_and_behind_damage_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    make_video(source, "matroska", seconds=2.0)
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    source.write_bytes(data)
    replace_sound(source, tmp_path / "b.mkv", np.zeros((1, 2 * RATE), np.float32))
    whole = {packet[3] for packet in video_packets(source)}
    assert 25 < len(whole) < 50
    assert {packet[3] for packet in video_packets(tmp_path / "b.mkv")} == whole


def test_pictures_stay_the_same_in_webm(tmp_path: Path) -> None:
    make_video(tmp_path / "a.webm", "webm", "libvpx", "libopus", seconds=0.6)
    replace_sound(tmp_path / "a.webm", tmp_path / "b.webm")
    assert video_packets(tmp_path / "b.webm") == video_packets(tmp_path / "a.webm")
    assert click_s(tmp_path / "b.webm") == pytest.approx(click_s(tmp_path / "a.webm"), abs=0.002)


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv"])
def test_pictures_can_be_decoded(target: str, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", "mp4", "libx264", seconds=0.4)
    replace_sound(tmp_path / "a.mp4", tmp_path / f"b.{target}")
    frames = []
    for path in (tmp_path / "a.mp4", tmp_path / f"b.{target}"):
        with av.open(str(path)) as file:
            frames.append(np.stack([frame.to_ndarray() for frame in file.decode(video=0)]))
    np.testing.assert_array_equal(*frames)


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_sound_may_be_shorter_or_longer_than_the_pictures(seconds: float, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    wave = np.zeros((2, round(seconds * RATE)), np.float32)
    replace_sound(tmp_path / "a.mp4", tmp_path / "b.mp4", wave)
    assert video_packets(tmp_path / "b.mp4") == video_packets(tmp_path / "a.mp4")
    assert decode(tmp_path / "b.mp4")[0].shape == wave.shape


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    for target in ("mp4", "mkv"):
        replace_sound(tmp_path / "a.mp4", tmp_path / f"b.{target}")
        replace_sound(tmp_path / "a.mp4", tmp_path / f"c.{target}")
        assert (tmp_path / f"b.{target}").read_bytes() == (tmp_path / f"c.{target}").read_bytes()


def test_rotation_is_kept(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=0.2)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    upright, rotated = (1, 0, 0, 0, 1, 0), (0, 1, 0, -1, 0, 0)
    matrices = [
        struct.pack(">9i", *(a << 16 for a in m[:2]), 0, *(a << 16 for a in m[3:5]), 0, 0, 0, 1 << 30)
        for m in (upright, rotated)
    ]
    at = data.index(matrices[0], data.index(b"tkhd"))
    data[at : at + 36] = matrices[1]
    (tmp_path / "a.mp4").write_bytes(data)
    for target in ("mp4", "mov", "mkv"):
        replace_sound(tmp_path / "a.mp4", tmp_path / f"b.{target}")
        with av.open(str(tmp_path / f"b.{target}")) as file:
            assert next(file.decode(video=0)).rotation == -90


def test_language_and_tags_are_kept_and_ours_come_first(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=0.2)
    for target in ("mp4", "mkv"):
        output = tmp_path / f"b.{target}"
        replace_sound(tmp_path / "a.mp4", output)
        assert ("audio", "deu") in streams_of(output)
        assert tags_of(output)[0]["title"] == "A talk"
        replace_sound(tmp_path / "a.mp4", tmp_path / f"c.{target}", metadata=Metadata(tags={"title": "Other"}))
        assert tags_of(tmp_path / f"c.{target}")[0]["title"] == "Other"


def test_provenance_and_levels_of_the_old_sound_are_not_kept(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=0.2)
    tags = {"title": "A talk", "AUDIOSR": "old", "replaygain_track_gain": "-3 dB", "director": "somebody"}
    replace_sound(tmp_path / "a.mp4", tmp_path / "b.mkv", metadata=Metadata(tags=tags))
    assert tags_of(tmp_path / "b.mkv")[0].keys() >= {name.lower() for name in tags}
    replace_sound(tmp_path / "b.mkv", tmp_path / "c.mkv")
    assert tags_of(tmp_path / "c.mkv")[0].keys() & {name.lower() for name in tags} == {"title", "director"}


def make_rich_video(path: Path) -> None:
    """Write a Matroska file with two languages, subtitles, a font and chapters."""
    make_video(path.with_suffix(".mp4"))
    with av.open(str(path.with_suffix(".mp4"))) as source, av.open(str(path), "w", format="matroska") as output:
        video = output.add_stream_from_template(source.streams.video[0], opaque=True)
        sounds = [output.add_stream_from_template(source.streams.audio[0]) for _ in range(2)]
        sounds[1].metadata["language"] = "fra"
        subtitles: Any = output.add_mux_stream("subrip")
        subtitles.metadata["language"] = "eng"
        subtitles.disposition = FORCED
        output.add_attachment("a.ttf", "font/ttf", b"a font")
        milli = Fraction(1, 1000)
        parts: list[Any] = [
            {"id": i, "start": 400 * i, "end": 400 * i + 400, "time_base": milli, "metadata": {"title": f"Part {i}"}}
            for i in range(2)
        ]
        output.set_chapters(parts)
        line = av.Packet(b"Hello")
        line.pts = line.dts = 300
        line.duration, line.time_base, line.stream, line.is_keyframe = 400, milli, subtitles, True
        for packet in source.demux():
            if packet.size:
                for stream in sounds if packet.stream.type == "audio" else [video]:
                    copy = av.Packet(bytes(packet))
                    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                    copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, stream
                    output.mux(copy)
            if packet.pts == 0 and packet.stream.type == "video":
                output.mux(line)


def test_what_fits_is_kept_and_the_rest_is_said_once(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    make_rich_video(source)
    assert replace_sound(source, tmp_path / "b.mkv") == [f"{source}: mkv output is without stream 2 (aac audio, fra)"]
    kept = [("video", None), ("subtitle", "eng"), ("audio", None), ("attachment", None)]
    assert streams_of(tmp_path / "b.mkv") == kept
    assert replace_sound(source, tmp_path / "b.mp4") == [
        f"{source}: mp4 output is without stream 2 (aac audio, fra), stream 3 (subrip subtitle, eng), "
        "stream 4 (attachment)"
    ]
    for name in ("b.mkv", "b.mp4"):
        with av.open(str(tmp_path / name)) as file:
            chapters = [
                (float(part["start"] * part["time_base"]), part["metadata"]["title"]) for part in file.chapters()
            ]
            assert chapters == [(0.0, "Part 0"), (0.4, "Part 1")]
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert int(file.streams.subtitles[0].disposition) == FORCED
        assert file.streams[3].data == b"a font"  # type: ignore[attr-defined]
        (line,) = [packet for packet in file.demux(subtitles=0) if packet.size]
        assert (bytes(line), float(line.pts * line.time_base)) == (b"Hello", pytest.approx(0.3, abs=0.03))


def test_the_chosen_audio_stream_is_replaced(tmp_path: Path) -> None:
    make_rich_video(tmp_path / "a.mkv")
    notes = replace_sound(tmp_path / "a.mkv", tmp_path / "b.mkv", audio_stream=2)
    assert "stream 1 (aac audio)" in notes[0]
    assert ("audio", "fra") in streams_of(tmp_path / "b.mkv")


def test_a_container_that_cannot_hold_the_video_is_refused_before_work(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", seconds=0.2)
    (tmp_path / "b.webm").write_bytes(b"old")
    with (
        pytest.raises(OutputError, match=r"a\.mp4: webm cannot hold mpeg4 video; use mkv"),
        AudioWriter(tmp_path / "b.webm", choose_format("webm", None, "", RATE, 1), source=tmp_path / "a.mp4"),
    ):
        pass
    make_video(tmp_path / "a.mkv", "matroska", "libvpx", seconds=0.2)
    with (
        pytest.raises(OutputError, match="mp4 cannot hold vp8 video; use mkv"),
        AudioWriter(tmp_path / "b.mp4", choose_format("mp4", None, "", RATE, 1), source=tmp_path / "a.mkv"),
    ):
        pass
    make_video(tmp_path / "a.flv", "flv", "flv", "aac", seconds=0.2)
    with (
        pytest.raises(OutputError, match="mp4 cannot hold flv1 video; use an audio format such as m4a"),
        AudioWriter(tmp_path / "b.mp4", choose_format("mp4", None, "", RATE, 1), source=tmp_path / "a.flv"),
    ):
        pass
    assert (tmp_path / "b.webm").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flv", "a.mkv", "a.mp4", "b.webm"]


def test_a_recording_without_video_becomes_sound_alone(tmp_path: Path) -> None:
    from media_files import picture

    sound = tmp_path / "a.m4a"
    with AudioWriter(sound, choose_format("m4a", None, "", RATE, 1), metadata=Metadata(cover=picture())) as writer:
        writer.write(np.zeros((1, 9000), np.float32))
        writer.finish()
        writer.commit()
    (tmp_path / "text.mp4").write_text("no video")
    for source in (sound, tmp_path / "text.mp4", tmp_path / "missing.mp4"):
        assert not has_video(source)
    assert replace_sound(sound, tmp_path / "b.mp4", np.zeros((1, 9000), np.float32)) == []
    assert [kind for kind, _ in streams_of(tmp_path / "b.mp4")] == ["audio"]


@pytest.mark.parametrize("target", ["mp4", "mkv"])
@pytest.mark.parametrize("missing", [1, 2000])
def test_a_disk_that_fills_up_keeps_the_old_video(target: str, missing: int, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk."""
    source, output = tmp_path / "a.avi", tmp_path / f"b.{target}"
    make_video(source, "avi", sound="libmp3lame", seconds=0.4)
    replace_sound(source, output)
    size = output.stat().st_size
    output.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, hard))
    try:
        with pytest.raises(OutputError, match=rf"b\.{target}: cannot be written: File too large"):
            replace_sound(source, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.avi", output.name]


def test_a_video_is_read_while_the_sound_is_written(tmp_path: Path) -> None:
    """Neither the packets of hours nor a second file are kept: pictures go out with the sound of the same time."""
    make_video(tmp_path / "a.mp4", seconds=4.0)
    with AudioWriter(tmp_path / "b.mp4", choose_format("mp4", None, "", RATE, 1), source=tmp_path / "a.mp4") as writer:
        sink: Any = writer._sink
        for second in range(1, 4):
            writer.write(np.zeros((1, RATE), np.float32))
            waiting: Any = sink._video._next
            assert float(waiting.dts * waiting.time_base) == pytest.approx(second, abs=0.15)
        writer.finish()
        writer.commit()


def test_packets_behind_damage_are_read() -> None:
    class Source:
        parts: ClassVar = [["a", "b"], ["c"]]

        def demux(self, streams: list[Any]) -> Iterator[str]:
            yield from self.parts.pop(0)
            if self.parts:
                raise av.error.InvalidDataError(1, f"damage in {streams}")

    source: Any = Source()
    assert list(remux._packets(source, [])) == ["a", "b", "c"]


def test_a_video_that_disappears_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises((OSError, OutputError)):
        VideoSource(tmp_path / "missing.mp4")
