"""streaming/kind.py: the decision over the windows of a recording."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise, tone
from kinds import classifier

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.errors import UsageError
from audiosr_cli.streaming.kind import DetectedKind, add_kind, classify, detect_kind
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.report import Report

RATE = 16000
TONE, NOISE = tone(8 * RATE, 500, RATE), noise(8 * RATE)


def detected(signal: Samples, options: Options | None = None) -> DetectedKind:
    options = options or Options()
    reader = ArrayReader(signal, RATE)
    reader.trim(options.start_s, options.end_s)
    return detect_kind(reader, classifier(), options)


def test_the_kind_is_the_likeliest_one() -> None:
    assert (detected(TONE).kind, detected(NOISE).kind) == ("music", "effects")
    assert detected(TONE).confidence == pytest.approx(1.0)


def test_probabilities_are_means_over_windows() -> None:
    """Three windows of four are a tone."""
    mixed = np.concatenate([TONE[:, : 6 * RATE], NOISE[:, : 2 * RATE]], axis=1)
    assert (detected(mixed).kind, detected(mixed).confidence) == ("music", pytest.approx(0.75, abs=0.01))


@pytest.mark.parametrize(
    ("logits", "kind", "confidence"),
    [
        ((0.41, 0.59, 0.0), "speech", 0.41),
        ((0.39, 0.61, 0.0), "music", 0.61),
        ((0.38, 0.3, 0.32), "speech", 0.38),
        ((0.1, 0.4, 0.5), "effects", 0.5),
    ],
)
def test_what_may_be_speech_is_treated_as_speech(
    logits: tuple[float, ...], kind: str, confidence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier()
    monkeypatch.setattr(model, "forward", lambda x: torch.tensor([logits]).log().expand(len(x), 3))
    found = detect_kind(ArrayReader(TONE, RATE), model, Options())
    assert (found.kind, found.confidence) == (kind, pytest.approx(confidence, abs=1e-3))


def test_windows_30_db_below_the_loudest_one_do_not_count() -> None:
    for level, confidence in ((0.01, 1.0), (0.3, 0.5)):  # as much noise as tone
        mixed = np.concatenate([TONE[:, : 4 * RATE], level * 5 * NOISE[:, : 4 * RATE]], axis=1)
        assert detected(mixed).confidence == pytest.approx(confidence, abs=0.01)


def test_silence_is_treated_as_speech_and_has_no_confidence() -> None:
    for frames in (0, 100, 3 * RATE):
        silent = detected(np.zeros((1, frames), np.float32))
        assert (silent.kind, silent.confidence) == ("speech", None)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.5])
def test_short_recordings_have_a_kind(seconds: float) -> None:
    assert detected(TONE[:, : round(seconds * RATE)]).kind == "music"


def test_channels_are_mixed_as_they_are_processed_and_wrong_samples_are_zero() -> None:
    stereo = np.concatenate([TONE, 3 * NOISE])
    stereo[1, 1000] = np.nan
    kinds = [detected(stereo, options=Options(channels=channels)).kind for channels in (1, 2, "each", "mix")]
    assert kinds == ["music", "effects", "effects", "effects"]


def test_a_channel_that_a_recording_lacks_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--channels 2: the array has only 1"):
        detected(TONE, options=Options(channels=2))


def test_only_the_part_between_start_and_end_counts() -> None:
    mixed = np.concatenate([TONE, NOISE], axis=1)
    assert detected(mixed, options=Options(end_s=8.0)).confidence == pytest.approx(1.0)
    assert detected(mixed, options=Options(start_s=8.0)).kind == "effects"


def test_30_seconds_of_a_pipe_are_looked_at_and_nothing_of_it_is_lost() -> None:
    signal = np.concatenate([np.tile(TONE, 4)[:, : 30 * RATE], np.tile(NOISE, 8)], axis=1)
    stream = io.BytesIO()
    soundfile.write(stream, signal.T, RATE, "FLOAT", format="WAV")
    with AudioReader(stream.getvalue()) as reader:
        assert detect_kind(reader, classifier(), Options()).confidence == pytest.approx(1.0)
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks()), axis=1), signal)


def test_at_most_a_minute_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    model, lengths = classifier(), list[int]()
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda x: [lengths.append(x.numel()), forward(x)][1])
    reader = ArrayReader(np.tile(TONE, 30), RATE)
    assert detect_kind(reader, model, Options()).kind == "music"
    assert lengths == [60 * 8000]


def test_windows_are_whole_ones() -> None:
    model, wave = classifier(), torch.from_numpy(tone(40000, 500, 8000)[0])
    wave[32000:] = torch.from_numpy(noise(8000, level=1.0)[0])
    probabilities = classify(wave, model)
    assert probabilities is not None
    assert list(probabilities) == ["speech", "music", "effects"]
    assert probabilities["music"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "likeliest", "confidence", "note"),
    [
        ("speech", "speech", 0.9, None),
        ("speech", "speech", None, None),
        ("music", "music", 0.876, "a.wav: treated as music (confidence 0.88; see --kind)"),
        ("speech", "effects", 0.25, "a.wav: it may be effects, but is treated as speech (confidence 0.25; see --kind)"),
    ],
)
def test_reports_say_what_is_not_plain_speech(kind: str, likeliest: str, confidence: float, note: str | None) -> None:
    report = Report("a.wav", [], elapsed_s=1.0, notes=["first"])
    detected = DetectedKind(kind, confidence, likeliest, 2.0)  # type: ignore[arg-type]
    add_kind(report, detected, restored=True)
    assert (report.kind, report.kind_confidence, report.elapsed_s) == (kind, confidence, 3.0)
    assert report.notes == [*([note] if note else []), "first"]


def test_where_nothing_is_restored_only_the_fields_say_what_it_is() -> None:
    report = Report("a.wav", [])
    add_kind(report, DetectedKind("effects", 0.9, "effects", 0.1), restored=False)
    assert (report.kind, report.kind_confidence, report.notes) == ("effects", 0.9, [])
