"""What a recording says of itself: read from files of every kind, written to outputs, and damaged."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from metadata_cases import CASES, CENTRE, LEFT, LFE, RIGHT, bext, chunk, everything, png, wav

from audiosr_cli.audio.formats import FORMATS, OutputFormat
from audiosr_cli.audio.metadata import types as metadata_module
from audiosr_cli.audio.metadata.fitting import fit
from audiosr_cli.audio.metadata.id3 import write_id3
from audiosr_cli.audio.metadata.read import provenance_of, read_metadata
from audiosr_cli.audio.metadata.types import Marker, Metadata
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.write import AudioWriter

RATE, FRAMES = 48000, 9600


def write(path: Path, container: str, metadata: Metadata, channels: int, subtype: str = "") -> list[str]:
    """Write a file with metadata and return what is lost."""
    fitted, lost = fit(metadata, container, channels, FRAMES / RATE)
    output_format = OutputFormat(container, subtype or FORMATS[container][0], RATE, channels)
    with AudioWriter(path, output_format, metadata=fitted) as writer:
        writer.write(np.full((channels, FRAMES), 0.25, np.float32))
        writer.finish()
        writer.commit()
        return lost + writer.notes


@pytest.mark.parametrize("subtype", FORMATS["wav"])
def test_wav_keeps_everything(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    assert write(path, "wav", everything(), 3, subtype) == []
    bits = 32 if subtype == "FLOAT" else int(subtype[4:])
    history = f"A=ANALOGUE\r\nA=PCM,F=48000,W={bits},T=audiosr\r\n".encode()
    assert read_metadata(path) == replace(everything(), bext=bext(2**33, b"take 3", history))
    assert soundfile.info(path).frames == FRAMES
    assert np.all(soundfile.read(path)[0] == 0.25)


def test_other_programs_read_the_metadata_of_a_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, "wav", replace(everything(), bext=None), 3)
    with av.open(str(path)) as container:
        assert {"title": "Tité 日本", "album_artist": "AA", "mood": "x"}.items() <= container.metadata.items()
        assert [stream.codec_context.name for stream in container.streams.video] == ["png"]
        assert container.streams.audio[0].layout.name == "3.0"
        assert [chapter["start"] for chapter in container.chapters()] == [480, 2400]
    with soundfile.SoundFile(path) as file:
        assert (file.title, file.artist, file.tracknumber) == ("Tité 日本", "A", "3")


@pytest.mark.parametrize("frames", [1, 2])
def test_sizes_in_headers_count_all_chunks(tmp_path: Path, frames: int) -> None:
    described = replace(everything(), ixml=b"odd")
    for container in ("wav", "w64", "aiff"):
        fitted, _ = fit(described, container, 1)
        output_format = OutputFormat(container, "PCM_24", RATE, 1)
        with AudioWriter(tmp_path / container, output_format, metadata=fitted) as writer:
            writer.write(np.full((1, frames), 0.25, np.float32))
            writer.finish()
            writer.commit()
    sizes = {name: (tmp_path / name).stat().st_size for name in ("wav", "w64", "aiff")}
    assert struct.unpack_from("<I", (tmp_path / "wav").read_bytes(), 4) == (sizes["wav"] - 8,)
    assert struct.unpack_from("<Q", (tmp_path / "w64").read_bytes(), 16) == (sizes["w64"],)
    assert struct.unpack_from(">I", (tmp_path / "aiff").read_bytes(), 4) == (sizes["aiff"] - 8,)
    assert {read_metadata(tmp_path / name).tags["title"] for name in sizes} == {described.tags["title"]}


KEPT = {  # tags and the rest, of each container
    "w64": ("title artist comment date track", "channel_mask"),
    "aiff": ("title artist album_artist comment date track mood", "cover"),
    "caf": ("title artist album_artist comment date track mood", "channel_mask"),
    "flac": ("title artist album_artist comment date track mood", "cover channel_mask"),
    "ogg": ("title artist album_artist comment date track mood", "cover channel_mask"),
    "opus": ("title artist album_artist comment date track mood", "cover channel_mask"),
    "mkv": ("title artist album_artist comment date track mood", "cover channel_mask"),
    "m4a": ("title artist album_artist comment date track", "cover channel_mask"),
    "mov": ("title artist comment date", "channel_mask"),
    "webm": ("title artist album_artist comment date track mood", "channel_mask"),
}


@pytest.mark.parametrize("container", KEPT)
def test_containers_keep_what_they_can(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    write(path, container, everything(), 3)
    tags, others = KEPT[container]
    found = read_metadata(path)
    expected = everything()
    assert [found.tags.get(name) for name in tags.split(" ")] == [expected.tags[name] for name in tags.split(" ")]
    assert [getattr(found, name) for name in others.split(" ")] == [
        getattr(expected, name) for name in others.split(" ")
    ]
    if container != "mov":  # where it stands apart
        assert found.provenance == expected.provenance
    assert provenance_of(path) == {
        "tool": "audiosr",
        "version": "1.2.3",
        "command": "separate",
        "models": ["small 123"],
    }


def test_wave64_keeps_the_broadcast_chunk(tmp_path: Path) -> None:
    write(tmp_path / "a.w64", "w64", everything(), 3, "PCM_24")
    history = b"A=ANALOGUE\r\nA=PCM,F=48000,W=24,T=audiosr\r\n"
    assert read_metadata(tmp_path / "a.w64").bext == bext(2**33, b"take 3", history)
    assert soundfile.info(tmp_path / "a.w64").frames == FRAMES
    assert np.all(soundfile.read(tmp_path / "a.w64")[0] == 0.25)


@pytest.mark.parametrize("taken", [{}, {"synopsis": "s"}, dict.fromkeys(("synopsis", "network", "keywords"), "s")])
def test_provenance_takes_no_place_from_tags_of_an_mp4(tmp_path: Path, taken: dict[str, str]) -> None:
    provenance = everything().provenance
    write(tmp_path / "a.m4a", "m4a", Metadata({"title": "x"} | taken, provenance=provenance), 1)
    with av.open(str(tmp_path / "a.m4a")) as container:
        own = {"title", "AUDIOSR", "synopsis", "network", "keywords", "lyrics", "comment"}
        found = {name: text for name, text in container.metadata.items() if name in own}
        assert sum(frame.samples for frame in container.decode(audio=0)) >= FRAMES
    assert found == {"title": "x", "AUDIOSR": provenance} | taken


def test_mp3_keeps_tags_cover_art_and_chapters(tmp_path: Path) -> None:
    write(tmp_path / "a.mp3", "mp3", replace(everything(), bext=None, channel_mask=0), 2)
    found = read_metadata(tmp_path / "a.mp3")
    assert (found.tags, found.cover) == (everything().tags, png())
    assert [marker.label for marker in found.markers] == ["first", "région"]
    assert found.provenance == everything().provenance


@pytest.mark.parametrize("container", ["aiff", "flac", "ogg", "opus", "m4a", "mkv"])
def test_markers_keep_their_times_and_names(tmp_path: Path, container: str) -> None:
    write(tmp_path / "a", container, Metadata(markers=everything().markers, sample_rate=RATE), 2)
    found = {marker.label: round(marker.start_s, 6) for marker in read_metadata(tmp_path / "a").markers}
    assert found == {"first": 0.01, "région": 0.05} | ({"Start": 0.0} if container == "m4a" else {})


@pytest.mark.parametrize("container", ["flac", "opus"])
def test_the_tool_among_the_tags_costs_no_marker_its_name(tmp_path: Path, container: str) -> None:
    tags = {"encoder": "audiosr 0", "title": "x"}
    write(tmp_path / "a", container, Metadata(tags=tags, markers=everything().markers, sample_rate=RATE), 2)
    assert [marker.label for marker in read_metadata(tmp_path / "a").markers] == ["first", "région"]


@pytest.mark.parametrize("container", ["m4a", "mov"])
def test_the_sound_of_files_with_chapters_is_read(tmp_path: Path, container: str) -> None:
    write(tmp_path / "a", container, Metadata(markers=everything().markers, sample_rate=RATE), 2)
    with AudioReader(tmp_path / "a") as reader:
        assert sum(block.shape[1] for block in reader.blocks()) >= FRAMES
        assert reader.warnings == []


@pytest.mark.parametrize("container", FORMATS)
def test_outputs_without_metadata_have_none(tmp_path: Path, container: str) -> None:
    assert write(tmp_path / "a", container, Metadata(), 1) == []
    found = read_metadata(tmp_path / "a")
    assert (dict(found.tags), found.cover, found.markers, found.provenance) == ({}, None, (), "")
    assert provenance_of(tmp_path / "a") is None


@pytest.mark.parametrize("container", FORMATS)
def test_two_writers_write_the_same_bytes(tmp_path: Path, container: str) -> None:
    for name in "ab":
        write(tmp_path / name, container, everything(), 1)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("container", ["wav", "flac", "w64", "caf"])
@pytest.mark.parametrize(("mask", "channels"), [(LEFT | RIGHT | LFE, 3), (LEFT | LFE, 2), (LFE, 1), (0x63F, 8)])
def test_unusual_channel_layouts_stay(tmp_path: Path, container: str, mask: int, channels: int) -> None:
    lost = write(tmp_path / "a", container, Metadata(channel_mask=mask), channels)
    if container == "flac" and channels <= 2:
        assert lost == ["the channel layout"]
        return
    assert read_metadata(tmp_path / "a").channel_mask == mask
    assert soundfile.info(tmp_path / "a").frames == FRAMES


def test_a_broadcast_wave_file_is_read() -> None:
    found = read_metadata(CASES / "bwf.wav")
    assert (found.tags, found.markers, found.sample_rate) == ({"title": "Title"}, (Marker(1.0),), 16000)
    assert (found.bext or b"")[:16] == b"Interview take 3"
    assert (found.ixml or b"").startswith(b"<BWFXML>")


def test_tags_of_an_mp3_are_read() -> None:
    assert read_metadata(CASES / "tag.mp3").tags == {"title": "Call 17", "artist": "Desk"}


@pytest.mark.parametrize("order", "<>")
def test_tags_and_markers_after_the_samples_are_read(order: str) -> None:
    info = b"INFO" + chunk(b"INAM", "Größe".encode("cp1252"), order) + chunk(b"ICMT", "日".encode() + b"\0\0x", order)
    cue = struct.pack(order + "I", 2) + b"".join(
        struct.pack(order + "II4sIII", name, at, b"data", 0, 0, at) for name, at in ((9, 800), (4, 400))
    )
    region = struct.pack(order + "II4sHHHH", 9, 200, b"rgn ", 0, 0, 0, 0)
    label = chunk(b"labl", struct.pack(order + "I", 9) + b"here\0", order)
    adtl = b"adtl" + label + chunk(b"ltxt", region, order) + chunk(b"note", struct.pack(order + "I", 4) + b"n", order)
    after = chunk(b"LIST", info, order) + chunk(b"cue ", cue, order) + chunk(b"LIST", adtl, order)
    found = read_metadata(io.BytesIO(wav(after=after, frames=801, order=order)))
    assert found.tags == {"title": "Größe", "comment": "日"}
    assert found.markers == (Marker(0.05, note="n"), Marker(0.1, 0.025, "here"))


def test_a_broadcast_chunk_with_reversed_numbers_is_not_scaled_as_if_it_had_none() -> None:
    found = read_metadata(io.BytesIO(wav(chunk(b"bext", bext(7), ">"), order=">")))
    assert (found.bext, found.dropped) == (None, ("the broadcast chunk (bext) of RIFX",))


def test_info_without_padding_is_read() -> None:
    entries = b"INAM" + struct.pack("<I", 3) + b"abc" + b"IART" + struct.pack("<I", 3) + b"def"
    found = read_metadata(io.BytesIO(wav(chunk(b"LIST", b"INFO" + entries))))
    assert found.tags == {"title": "abc", "artist": "def"}


def test_id3_in_a_wav_completes_its_info() -> None:
    tag = write_id3({"title": "long title", "mood": "x"}, png())
    found = read_metadata(io.BytesIO(wav(chunk(b"LIST", b"INFO" + chunk(b"INAM", b"short")), chunk(b"id3 ", tag))))
    assert (found.tags, found.cover) == ({"title": "short", "mood": "x"}, png())


def test_id3_has_comments_of_its_own_kind() -> None:
    assert b"COMM\0\0\0\x06\0\0\3und\0x" in write_id3({"comment": "x"})


def test_chunks_after_more_than_4_gib_are_found(tmp_path: Path) -> None:
    size = 2**32 + 2
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, size, size // 2, 0))
    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))
    with open(tmp_path / "a.wav", "wb") as file:
        file.write(b"RF64" + bytes.fromhex("ffffffff") + b"WAVE" + ds64 + fmt + b"data" + bytes.fromhex("ffffffff"))
        file.seek(size, 1)
        file.write(chunk(b"LIST", b"INFO" + chunk(b"INAM", b"far away")))
    assert read_metadata(tmp_path / "a.wav").tags == {"title": "far away"}


def test_tags_about_the_file_or_its_level_are_not_passed_on(tmp_path: Path) -> None:
    tags = {"title": "x", "encoder": "Lavf", "REPLAYGAIN_TRACK_GAIN": "-3 dB", "r128_track_gain": "5"}
    write(tmp_path / "a.flac", "flac", Metadata(tags), 1)
    assert read_metadata(tmp_path / "a.flac").tags == {"title": "x"}


def test_what_no_output_keeps_is_named() -> None:
    found = read_metadata(io.BytesIO(wav(chunk(b"cart", b"x"), chunk(b"smpl", b"x") + chunk(b"cart", b"x"))))
    assert found.dropped == ("the cart chunk", "sampler loops (smpl)")


def test_metadata_of_any_size_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("riff", "media"):
        monkeypatch.setattr(f"audiosr_cli.audio.metadata.{module}.MAX_BYTES", 1 << 20)
    assert metadata_module.MAX_BYTES == 1 << 24
    large = chunk(b"iXML", bytes(3 << 20)) + chunk(b"LIST", b"INFO" + chunk(b"INAM", b"x"))
    found = read_metadata(io.BytesIO(wav(large)))
    assert (found.tags, found.ixml, found.dropped) == ({"title": "x"}, None, ("iXML of 3 MiB",))
    write(tmp_path / "a.flac", "flac", Metadata(cover=png() + bytes(2 << 20)), 1)
    assert read_metadata(tmp_path / "a.flac").dropped == ("cover art of 2 MiB",)
    write(tmp_path / "b.flac", "flac", Metadata(tags={"lyrics": "x" * (1 << 19), "title": "x"}), 1)
    metadata = read_metadata(tmp_path / "b.flac")  # one tag that is too long does not cost the others
    assert (metadata.tags, metadata.dropped) == ({"title": "x"}, ("the tag 'lyrics', which is too long",))


CUE = struct.pack("<I", 2**31)
HOSTILE = {
    "a chunk of 2 GB": wav(b"LIST" + struct.pack("<I", 2**31) + b"INFO"),
    "cue points that are not there": wav(after=chunk(b"cue ", CUE)),
    "half a cue": wav(after=chunk(b"cue ", CUE + b"x") + chunk(b"cue ", b"x")),
    "labels that are cut": wav(after=chunk(b"cue ", CUE + bytes(24)) + chunk(b"LIST", b"adtllabl\xff\xff\xff\xff\0\0")),
    "an entry that is too long": wav(chunk(b"LIST", b"INFOINAM\xff\xff\xff\xffabc")),
    "no format": b"RIFF\0\0\0\0WAVE" + chunk(b"cue ", CUE + bytes(24)),
    "no rate": wav(after=chunk(b"cue ", struct.pack("<I", 1) + bytes(24)), sample_rate=0),
    "id3 that is noise": wav(chunk(b"id3 ", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(range(256)))),
    "many chunks": wav(chunk(b"JUNK", b"") * 100_000),
    "an empty file": b"",
    "text": b"hello, this is no recording\n" * 100,
    "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "an AIFF of nothing": b"FORM\0\0\0\4AIFF",
    "markers that are cut": b"FORM\0\0\0\4AIFFMARK\0\0\0\3\xff\xff\0COMM\0\0\0\x02xx",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_metadata_are_left_out(name: str) -> None:
    found = read_metadata(io.BytesIO(HOSTILE[name]))
    assert found.cover is None
    assert all(len(text) < 4 for text in found.tags.values())


@pytest.mark.parametrize("seed", range(20))
def test_mutated_metadata_never_fail(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    container = ["wav", "aiff", "w64", "caf", "flac"][seed % 5]
    write(tmp_path / "a", container, everything(), 3)
    whole = (tmp_path / "a").read_bytes()
    for _ in range(20):
        data = bytearray(whole[: int(draw.integers(12, len(whole)))])
        for at in draw.integers(12, len(data), 20):
            data[at] = int(draw.integers(256))
        read_metadata(io.BytesIO(bytes(data)))


def test_what_is_not_a_file_has_no_metadata(tmp_path: Path) -> None:
    assert read_metadata(tmp_path) == read_metadata(tmp_path / "missing") == read_metadata("a\0b") == Metadata()


def test_a_mask_with_more_bits_than_channels_is_dropped(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", "wav", Metadata(channel_mask=LEFT | RIGHT | CENTRE), 2)
    assert read_metadata(tmp_path / "a.wav").channel_mask == 0
