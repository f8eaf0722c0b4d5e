"""streaming/describe.py: what the outputs of a recording say of themselves, on the whole route."""

from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import noise
from metadata_cases import CASES, CENTRE, LEFT, LFE, RIGHT, chunk, png, wav

from audiosr_cli.audio.metadata import broadcast
from audiosr_cli.audio.metadata.read import Marker, Metadata, provenance_of, read_metadata
from audiosr_cli.audio.metadata.riff import write_chunks
from audiosr_cli.audio.wav import WavFormat, WavWriter
from audiosr_cli.pipelines import PipelineConfig, SeparateOptions, UpsampleOptions
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline

RESAMPLE = UpsampleOptions(48000, "none")


def pipeline(options: Options | None = None, command: Any = RESAMPLE) -> Pipeline:
    return PipelineConfig(command, options or Options()).build()


def surround(path: Path, mask: int, channels: int) -> Path:
    """Write a WAV file whose channels have positions."""
    with open(path, "wb") as file:
        writer = WavWriter(file, WavFormat(8000, channels, 16, channel_mask=mask), seekable=True)
        writer.write(np.rint(1000 * noise(800, channels)).astype(np.int32))
        writer.close()
    return path


def test_a_broadcast_wave_keeps_its_place_in_time(tmp_path: Path) -> None:
    pipeline().write(CASES / "bwf.wav", [tmp_path / "a.wav"])
    before, after = read_metadata(CASES / "bwf.wav"), read_metadata(tmp_path / "a.wav")
    assert broadcast.time_reference(after.bext or b"") == 3 * 576_000_000
    assert (after.bext or b"")[:338] == (before.bext or b"")[:338]
    low = b"<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO>%d<"
    assert after.ixml == (before.ixml or b"").replace(low % 576_000_000, low % 1_728_000_000)
    assert (after.tags, after.markers) == (before.tags, before.markers)


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "opus", "mp3", "m4a", "mkv", "aiff", "caf", "w64"])
def test_tags_reach_every_output(tmp_path: Path, container: str) -> None:
    target = tmp_path / f"a.{container}"
    pipeline().write(CASES / "tag.mp3", [target])
    assert {"title": "Call 17", "artist": "Desk"}.items() <= read_metadata(target).tags.items()


def test_all_speakers_carry_the_tags_and_say_which_they_are(small_weights: Path, tmp_path: Path) -> None:
    targets = [tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav"]
    pipeline(command=SeparateOptions(2, residual=True)).write(CASES / "bwf.wav", targets)
    assert [read_metadata(target).tags["title"] for target in targets] == ["Title"] * 3
    tags = [provenance_of(target) or {} for target in targets]
    assert [tag["output"] for tag in tags] == ["speaker1", "speaker2", "residual"]
    assert (tags[0]["command"], tags[0]["options"]) == ("separate", {"residual": True, "hum": "remove"})
    (name, digits), models = tags[0]["models"][0].split(" "), pipeline(command=SeparateOptions(2)).checkpoints
    assert models[name].startswith(digits)
    assert len(digits) == 12


def test_dialogue_stays_in_the_centre(tmp_path: Path) -> None:
    source = surround(tmp_path / "in.wav", LEFT | RIGHT | CENTRE, 3)
    for container in ("wav", "flac", "caf", "w64"):
        target = tmp_path / f"out.{container}"
        assert pipeline().write(source, [target]).notes == []
        assert read_metadata(target).channel_mask == LEFT | RIGHT | CENTRE
    with open(tmp_path / "out.wav", "rb") as file:  # as other programs read it: behind JUNK, in the fmt chunk
        head = file.read(200)
    assert struct.unpack_from("<I", head, head.index(b"fmt ") + 28) == (LEFT | RIGHT | CENTRE,)


@pytest.mark.parametrize("channels", ["mix", 3])
def test_one_channel_has_no_layout_of_many(tmp_path: Path, channels: Any) -> None:
    source = surround(tmp_path / "in.wav", LEFT | RIGHT | CENTRE, 3)
    pipeline(Options(channels=channels)).write(source, [tmp_path / "out.wav"])
    assert read_metadata(tmp_path / "out.wav").channel_mask == 0
    assert (provenance_of(tmp_path / "out.wav") or {})["options"]["channels"] == channels


def test_what_is_lost_is_said_once(small_weights: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.wav"
    described = Metadata({"title": "x", "mood": "y"}, png(), markers=(Marker(0.01),), sample_rate=8000)
    source.write_bytes(wav(write_chunks(described, 8000, 16, 1) + chunk(b"cart", b"x")))
    report = pipeline(command=SeparateOptions(2)).write(source, [tmp_path / "a.w64", tmp_path / "b.w64"])
    lost = "the cart chunk, cover art, markers and the tags mood"
    assert [line for line in report.notes if "kept" in line] == [f"{source}: {lost} cannot be kept in w64"]
    layout = surround(tmp_path / "lfe.wav", LEFT | RIGHT | LFE, 3)
    assert pipeline().write(layout, [tmp_path / "a.ogg"]).notes == [
        f"{layout}: the channel layout cannot be kept in ogg"
    ]


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3", "m4a", "aiff", "caf", "w64"])
def test_provenance_can_be_left_out(tmp_path: Path, container: str) -> None:
    first, second = tmp_path / f"a.{container}", tmp_path / f"b.{container}"
    pipeline().write(CASES / "tag.mp3", [first])
    assert (provenance_of(first) or {})["tool"] == "audiosr"
    pipeline(Options(provenance=False)).write(first, [second])  # that of an earlier round is not inherited
    assert provenance_of(second) is None
    assert b"audiosr" not in second.read_bytes().lower()


def test_provenance_is_renewed(tmp_path: Path) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    pipeline().write(CASES / "bwf.wav", [first])
    pipeline(command=UpsampleOptions(44100, "none")).write(first, [second])
    assert (provenance_of(second) or {})["options"] == {"rate": 44100}
    assert second.read_bytes().count(b'"tool": "audiosr"') == 1


def test_provenance_names_neither_paths_nor_times(small_weights: Path, tmp_path: Path) -> None:
    command = SeparateOptions(2, str(small_weights / "wave_u_net.safetensors"))
    pipeline(Options(clip="rescale"), command).write(CASES / "bwf.wav", [tmp_path / "a.wav", tmp_path / "b.wav"])
    tag = provenance_of(tmp_path / "a.wav") or {}
    assert tag.keys() == {"tool", "version", "command", "models", "options", "output"}
    assert tag["options"] == {"clip": "rescale", "hum": "remove"}
    assert str(tmp_path) not in json.dumps(tag)
    assert "/" not in json.dumps(tag)


def test_a_pipe_passes_on_what_comes_before_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, title in (("bwf.wav", "Title"), ("tag.mp3", "Call 17")):
        reading, writing = os.pipe()
        if os.fork() == 0:  # a writer that needs no thread and no imports
            os.close(reading)
            with open(writing, "wb") as file:
                file.write((CASES / name).read_bytes())
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as stream:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
            pipeline().write("-", [tmp_path / name])
        assert read_metadata(tmp_path / name).tags["title"] == title


def test_a_pipe_gets_the_metadata_before_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output))
    pipeline().write(CASES / "bwf.wav", ["-"])
    pipeline().write(CASES / "bwf.wav", [tmp_path / "a.wav"])
    assert read_metadata(io.BytesIO(output.getvalue())) == read_metadata(tmp_path / "a.wav")
    assert soundfile.info(tmp_path / "a.wav").frames == 3 * soundfile.info(CASES / "bwf.wav").frames
    size = 2 * soundfile.info(tmp_path / "a.wav").frames
    assert output.getvalue()[-size - 8 :] == b"data" + b"\xff" * 4 + (tmp_path / "a.wav").read_bytes()[-size:]


def test_a_part_keeps_its_place_in_time(tmp_path: Path) -> None:
    pipeline(Options(start_s=0.5, end_s=2.0)).write(CASES / "bwf.wav", [tmp_path / "a.wav"])
    part = read_metadata(tmp_path / "a.wav")
    assert broadcast.time_reference(part.bext or b"") == 3 * (576_000_000 + 8000)
    assert part.markers == (Marker(0.5),)
    assert (provenance_of(tmp_path / "a.wav") or {})["options"] == {"rate": 48000, "start_s": 0.5, "end_s": 2.0}
