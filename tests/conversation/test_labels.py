"""conversation/labels.py: each format holds the turns, as its library (or a parser of its columns) reads them back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiosr_cli.conversation import labels
from audiosr_cli.conversation.labels import FORMATS, SUFFIXES, Conversation, LabelFormat, parse_formats, write_labels
from audiosr_cli.conversation.turns import Turn
from audiosr_cli.errors import UsageError

TURNS = (Turn("speaker1", 0.0, 2.51, -20.1), Turn("Zoë B.", 2.0, 3661.25, -23.0), Turn("speaker1", 3.5, 4.0, -30.0))
TALK = Conversation("a talk", 3662.5, ("speaker1", "Zoë B.", "silent"), TURNS)
TIMES = [(turn.start_s, turn.end_s, turn.speaker) for turn in TURNS]
NOBODY = Conversation("empty", 1.0, ("speaker1", "speaker2"), ())


def written(tmp_path: Path, label_format: LabelFormat, conversation: Conversation = TALK) -> Path:
    path = tmp_path / f"x.{SUFFIXES[label_format]}"
    write_labels(path, label_format, conversation)
    return path


def test_rttm_has_ten_columns_and_names_without_spaces(tmp_path: Path) -> None:
    rows = [line.split(" ") for line in written(tmp_path, "rttm").read_text().splitlines()]
    assert {len(row) for row in rows} == {10}
    assert {tuple(row[:3]) for row in rows} == {("SPEAKER", "a_talk", "1")}
    assert [(float(row[3]), float(row[4]), row[7]) for row in rows] == [
        (start, pytest.approx(end - start), "_".join(name.split())) for start, end, name in TIMES
    ]


def test_audacity_reads_three_columns_separated_by_tabs(tmp_path: Path) -> None:
    rows = [line.split("\t") for line in written(tmp_path, "audacity").read_text().splitlines()]
    assert [(float(start), float(end), name) for start, end, name in rows] == TIMES


@pytest.mark.parametrize("label_format", ["srt", "vtt"])
def test_subtitles_are_read_back(tmp_path: Path, label_format: LabelFormat) -> None:
    pysubs2 = pytest.importorskip("pysubs2")
    events = pysubs2.load(str(written(tmp_path, label_format)))
    assert [(event.start / 1000, event.end / 1000, event.text) for event in events] == TIMES


def test_praat_has_a_tier_for_each_speaker(tmp_path: Path) -> None:
    textgrid = pytest.importorskip("praatio.textgrid")
    grid = textgrid.openTextgrid(str(written(tmp_path, "textgrid")), includeEmptyIntervals=False)
    assert grid.tierNames == TALK.speakers
    assert grid.maxTimestamp == TALK.duration_s
    for tier in grid.tiers:
        assert [tuple(entry) for entry in tier.entries] == [entry for entry in TIMES if entry[2] == tier.name]


def test_elan_has_a_tier_for_each_speaker(tmp_path: Path) -> None:
    elan = pytest.importorskip("pympi").Elan
    document = elan.Eaf(str(written(tmp_path, "eaf")))
    assert tuple(document.get_tier_names()) == TALK.speakers
    for speaker in TALK.speakers:
        annotations = sorted(document.get_annotation_data_for_tier(speaker))
        assert [(a / 1000, b / 1000, value) for a, b, value, *_ in annotations] == [
            entry for entry in TIMES if entry[2] == speaker
        ]


def test_json_has_turns_levels_and_totals(tmp_path: Path) -> None:
    value = json.loads(written(tmp_path, "json").read_text())
    assert (value["recording"], value["duration_s"]) == ("a talk", 3662.5)
    assert [Turn(**turn) for turn in value["turns"]] == list(TURNS)
    assert value["speakers"][0] == {"name": "speaker1", "turns": 2, "speech_s": pytest.approx(3.01)}
    assert value["speakers"][2] == {"name": "silent", "turns": 0, "speech_s": 0}


@pytest.mark.parametrize("label_format", FORMATS)
def test_a_recording_without_turns_can_be_written(tmp_path: Path, label_format: LabelFormat) -> None:
    try:
        assert written(tmp_path, label_format, NOBODY).exists()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


def test_formats_are_parsed_once_each_and_unknown_ones_refused() -> None:
    assert parse_formats("JSON, rttm,rttm") == ("rttm", "json")
    with pytest.raises(UsageError, match="--labels elan: unknown format; known: rttm, audacity"):
        parse_formats("rttm,elan")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--labels eaf: pympi-ling is not installed; pip install 'audiosr-cli\[labels"
    ):
        parse_formats("eaf")
    assert parse_formats("rttm,audacity,json") == ("rttm", "audacity", "json")
