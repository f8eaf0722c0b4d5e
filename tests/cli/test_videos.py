"""Videos on the command line: better sound beside the same pictures."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import decode, make_video, tags_of, video_packets
from running import audiosr, inside

RESTORE = ("upsample", "--model", "none", "--rate", "48000")  # resamples, and loads no model
AAC_FRAME = 1024  # samples, which FFmpeg's decoder does not cut at the end of a file


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.mp4"
    make_video(path)
    return path


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_upsample_keeps_the_pictures_where_the_output_is_a_video(container: str, talk: Path) -> None:
    better = talk.with_name(f"better.{container}")
    done = inside(*RESTORE, talk, "-o", better)
    assert done.returncode == 0, done.stderr
    assert [packet[2:] for packet in video_packets(better)] == [packet[2:] for packet in video_packets(talk)]
    output, start_s = decode(better)
    source, source_start_s = decode(talk)
    assert start_s == source_start_s
    assert output.shape[1] == pytest.approx(source.shape[1], abs=AAC_FRAME)
    assert np.argmax(np.abs(output) > 0.4) == pytest.approx(np.argmax(np.abs(source) > 0.4), abs=3)
    assert tags_of(better)[0]["title"] == "A talk"


def test_upsample_writes_wav_where_nothing_names_a_video(talk: Path) -> None:
    done = inside(*RESTORE, talk, cwd=talk.parent)
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in talk.parent.iterdir() if path != talk] == [".wav"]


def test_separate_writes_a_video_for_each_speaker(small_weights: Path, talk: Path) -> None:
    done = inside("separate", talk, "--format", "mp4", "-o", talk.parent / "out")
    assert done.returncode == 0, done.stderr
    outputs = sorted((talk.parent / "out").iterdir())
    assert [path.name for path in outputs] == ["talk_speaker1.mp4", "talk_speaker2.mp4"]
    for output in outputs:
        assert video_packets(output) == video_packets(talk)
        assert decode(output)[0].shape[1] == pytest.approx(decode(talk)[0].shape[1], abs=AAC_FRAME)


def test_a_video_that_does_not_fit_is_one_error_and_no_output(talk: Path) -> None:
    done = inside(*RESTORE, talk, "-o", talk.with_name("better.webm"))
    assert (done.returncode, list(talk.parent.iterdir())) == (1, [talk])
    assert b"talk.mp4: webm cannot hold mpeg4 video; use mkv" in done.stderr


def test_a_video_cannot_be_cut(talk: Path) -> None:
    done = inside(*RESTORE, talk, "--end", "0.5", "-o", talk.with_name("better.mp4"))
    assert (done.returncode, list(talk.parent.iterdir())) == (2, [talk])
    assert b"--start and --end cut the sound only" in done.stderr
    assert inside(*RESTORE, talk, "--end", "0.5", "-o", talk.with_name("better.m4a")).returncode == 0
    assert decode(talk.with_name("better.m4a"))[0].shape == (1, 24000)


def test_of_a_pipe_only_the_sound_is_kept_and_that_is_said_once(talk: Path) -> None:
    better = talk.with_name("better.mp4")
    done = audiosr(*RESTORE, "-", "-o", better, input=talk.read_bytes())
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"standard input: only its sound is kept; to keep a video, give the path of its file") == 1
    with av.open(str(better)) as file:
        assert [stream.type for stream in file.streams] == ["audio"]


def test_bitrate_is_an_option_of_lossy_formats_only(talk: Path) -> None:
    for bitrate, name in (("48k", "small.m4a"), ("160k", "large.m4a")):
        assert inside(*RESTORE, talk, "--bitrate", bitrate, "-o", talk.with_name(name)).returncode == 0
    assert talk.with_name("small.m4a").stat().st_size < talk.with_name("large.m4a").stat().st_size
    done = inside(*RESTORE, talk, "--bitrate", "192k", "-o", talk.with_name("a.wav"))
    assert (done.returncode, b"--bitrate 192k: wav has none" in done.stderr) == (2, True)
    done = inside(*RESTORE, talk, "--bitrate", "loud", "-o", talk.with_name("a.m4a"))
    assert (done.returncode, b"--bitrate loud: expected bits per second, such as 192k" in done.stderr) == (2, True)


def test_another_bitrate_is_another_output_for_resume(talk: Path) -> None:
    manifest, output = talk.with_name("m.jsonl"), talk.with_name("a.mp3")
    call = (*RESTORE, talk, "-o", output, "--manifest", manifest, "--resume")
    for bitrate, lines in (("64k", 1), ("64k", 1), ("96k", 2)):
        assert inside(*call, "--bitrate", bitrate).returncode == 0
        done = [line for line in map(json.loads, manifest.read_text().splitlines()) if line["status"] == "done"]
        assert len(done) == lines
