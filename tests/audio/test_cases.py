"""Recordings that the tool once got wrong, each with its length; tests of their kinds are in test_mpeg and test_ogg."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.dsp.bandwidth import BandMeter

CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize(
    ("name", "seconds", "warned"),
    [
        ("speech_vbr_notag.mp3", 12.0424, ""),
        ("lame64.mp3", 3.0302, ""),
        ("joined.mp3", 5.1149, ""),
        ("zeros.mp3", 5.112, ""),
        ("dmg.mp3", 2.0, "damaged at 0.6 s; 0.43 s are replaced by silence"),
        ("chained.ogg", 5.0, ""),
        ("bwf.wav", 3.0001, ""),
    ],
)
def test_recordings_are_read_to_their_end(name: str, seconds: float, warned: str) -> None:
    with AudioReader(CASES / name) as reader:
        frames = sum(block.shape[1] for block in reader.blocks())
        assert frames / reader.sample_rate == pytest.approx(seconds, abs=1e-4)
        assert [line.partition(": ")[2] for line in reader.warnings] == ([warned] if warned else [])


def test_the_shelf_of_an_mp3_encoder_is_found_as_its_cutoff() -> None:
    with AudioReader(CASES / "lame64.mp3") as reader:
        meter = BandMeter(reader.sample_rate)
        for block in reader.blocks():
            meter.push(block)
    assert 15_000 < (meter.cutoff() or 0) < 16_500
