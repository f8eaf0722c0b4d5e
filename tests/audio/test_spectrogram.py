"""audio/spectrogram.py: levels of known signals, and pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import tone

from audiosr_cli.audio import spectrogram
from audiosr_cli.errors import UsageError


def test_a_tone_is_a_line_at_its_frequency(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(96000, 3000, 48000)[0], 48000)
    levels, rate, seconds = spectrogram.spectrogram(path)
    assert (rate, seconds) == (48000, 2.0)
    loudest = levels.argmax(0) * rate / 2 / (len(levels) - 1)
    assert np.all(np.abs(loudest - 3000) < 30)


def test_a_part_is_shown_alone(tmp_path: Path) -> None:
    wave = np.concatenate([tone(24000, hz, 48000)[0] for hz in (1000, 3000, 9000)])
    soundfile.write(tmp_path / "a.wav", wave, 48000)
    levels, _, seconds = spectrogram.spectrogram(tmp_path / "a.wav", start_s=0.5, end_s=1.0)
    assert seconds == 0.5
    assert np.all(np.abs(levels.argmax(0) * 24000 / (len(levels) - 1) - 3000) < 30)


@pytest.mark.parametrize("frames", [0, 1, 100, 48000])
def test_short_recordings_have_fewer_columns(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(frames, 3000, 48000)[0], 48000)
    levels, _, seconds = spectrogram.spectrogram(path, 20)
    assert 1 <= levels.shape[1] <= 20
    assert np.isfinite(levels).all()
    assert seconds == frames / 48000


def test_draw_writes_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, rate in (("in", 8000), ("out", 48000)):
        soundfile.write(tmp_path / f"{name}.wav", tone(rate, 1000, rate)[0], rate)
    target = tmp_path / "p.png"
    panels = [spectrogram.Panel(name, tmp_path / f"{name}.wav") for name in ("in", "out")]
    spectrogram.draw(panels, target)
    assert target.read_bytes()[:4] == b"\x89PNG"


def test_other_suffixes_and_missing_matplotlib_are_usage_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"ends in \.png"):
        spectrogram.check(Path("a.jpg"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"audiosr-cli\[picture\]"):
        spectrogram.check(Path("a.png"))
