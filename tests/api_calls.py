"""Calls of the Python interface that need no model, and what they are given."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import tone

import audiosr_cli
from audiosr_cli.errors import AudioSRWarning

RATE = 8000
WAVE = tone(2000, 300, RATE, 2, 0.3)


def resample(source: Any, sample_rate: Any = None, **options: Any) -> audiosr_cli.Result:
    """The fastest call: no model."""
    return audiosr_cli.upsample(source, sample_rate, rate=16000, model="none", **options)


def encoded(wave: np.ndarray = WAVE, kind: str = "WAV", subtype: str = "FLOAT") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave.T, RATE, subtype, format=kind)
    return stream.getvalue()


def warned(source: Any, *arguments: Any, **options: Any) -> tuple[audiosr_cli.Result, list[str]]:
    """Resample, and return what was warned of."""
    with pytest.warns(AudioSRWarning) as caught:
        result = resample(source, *arguments, **options)
    assert [warning.filename for warning in caught] == [__file__] * len(caught)
    messages = [str(warning.message) for warning in caught]
    assert messages == result.report.warnings
    return result, messages
