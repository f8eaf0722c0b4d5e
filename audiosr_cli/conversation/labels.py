"""Turns as files that other programs read: diarisation tools, audio editors, video players, Praat and ELAN.

RTTM (NIST), Audacity's labels and JSON are written here; subtitles by pysubs2, Praat's TextGrid by praatio, ELAN's EAF
by pympi, which the extra ``labels`` installs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from audiosr_cli.conversation.turns import Turn
from audiosr_cli.errors import UsageError

LabelFormat = Literal["rttm", "audacity", "srt", "vtt", "textgrid", "json", "eaf"]
FORMATS: tuple[LabelFormat, ...] = get_args(LabelFormat)
# Suffix of the files of each format.
SUFFIXES: dict[LabelFormat, str] = {
    "rttm": "rttm",
    "audacity": "txt",
    "srt": "srt",
    "vtt": "vtt",
    "textgrid": "TextGrid",
    "json": "json",
    "eaf": "eaf",
}
# What the names of label files have in place of a speaker.
OUTPUT = "turns"
# Packages by the formats that need them, and the modules that they are imported as.
_PACKAGES = {"srt": "pysubs2", "vtt": "pysubs2", "textgrid": "praatio", "eaf": "pympi-ling"}
_MODULES = {"pympi-ling": "pympi"}
# Programs read RTTM by columns, which white space separates.
_RTTM_LINE = "SPEAKER {recording} 1 {start:.3f} {length:.3f} <NA> <NA> {speaker} <NA> <NA>\n"


@dataclass(frozen=True)
class Conversation:
    """Who speaks when in a recording.

    Attributes:
        recording: Name of the recording, without folder and suffix.
        duration_s: Length of the outputs in seconds.
        speakers: Names of all speakers, also of those who never speak.
        turns: In the order of their starts.
    """

    recording: str
    duration_s: float
    speakers: tuple[str, ...]
    turns: tuple[Turn, ...]

    def of(self, speaker: str) -> list[Turn]:
        """Return the turns of one speaker."""
        return [turn for turn in self.turns if turn.speaker == speaker]


def file_names(formats: Iterable[LabelFormat]) -> tuple[str, ...]:
    """Return names of label files, as outputs are named: ``turns.rttm``, where those of audio are ``speaker1``."""
    return tuple(f"{OUTPUT}.{SUFFIXES[name]}" for name in formats)


def split_name(output: str) -> tuple[str, str | None]:
    """Split the name of an output into what stands for the speaker, and the suffix of a label file or None."""
    name, _, suffix = output.rpartition(".")
    return (name, suffix) if name == OUTPUT and suffix in SUFFIXES.values() else (output, None)


def parse_formats(names: str) -> tuple[LabelFormat, ...]:
    """Parse the formats of ``--labels``.

    Args:
        names: Formats, separated by commas.

    Returns:
        Each of them once.

    Raises:
        UsageError: If a format is unknown, or its package is not installed.
    """
    found = dict.fromkeys(name.strip().lower() for name in names.split(","))
    unknown = next((name for name in found if name not in FORMATS), None)
    if unknown is not None:
        raise UsageError(f"--labels {unknown}: unknown format; known: {', '.join(FORMATS)}")
    formats = tuple(name for name in FORMATS if name in found)
    for name in formats:
        package = _PACKAGES.get(name)
        if package is not None and find_spec(_MODULES.get(package, package)) is None:
            raise UsageError(f"--labels {name}: {package} is not installed; pip install 'audiosr-cli[labels]'")
    return formats


def write_labels(path: Path, label_format: LabelFormat, conversation: Conversation) -> None:
    """Write the turns of a recording.

    Args:
        path: The file, which must not exist yet.
        label_format: Its format.
        conversation: The turns.

    Raises:
        OSError: If the file cannot be written.
    """
    _WRITERS[label_format](path, conversation)


def _write_rttm(path: Path, conversation: Conversation) -> None:
    lines = [
        _RTTM_LINE.format(
            recording=_word(conversation.recording),
            start=turn.start_s,
            length=turn.end_s - turn.start_s,
            speaker=_word(turn.speaker),
        )
        for turn in conversation.turns
    ]
    path.write_text("".join(lines), encoding="utf-8")


def _word(name: str) -> str:
    """Return ``name`` without white space."""
    return "_".join(name.split()) or "_"


def _write_audacity(path: Path, conversation: Conversation) -> None:
    lines = [f"{turn.start_s:.6f}\t{turn.end_s:.6f}\t{turn.speaker}\n" for turn in conversation.turns]
    path.write_text("".join(lines), encoding="utf-8")


def _write_json(path: Path, conversation: Conversation) -> None:
    value = {
        "recording": conversation.recording,
        "duration_s": round(conversation.duration_s, 6),
        "speakers": [
            {
                "name": speaker,
                "turns": len(conversation.of(speaker)),
                "speech_s": round(sum(turn.end_s - turn.start_s for turn in conversation.of(speaker)), 3),
            }
            for speaker in conversation.speakers
        ],
        "turns": [asdict(turn) for turn in conversation.turns],
    }
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_subtitles(path: Path, conversation: Conversation, subtitle_format: str) -> None:
    pysubs2 = import_module("pysubs2")
    subtitles = pysubs2.SSAFile()
    for turn in conversation.turns:
        start, end = (pysubs2.make_time(s=seconds) for seconds in (turn.start_s, turn.end_s))
        subtitles.append(pysubs2.SSAEvent(start=start, end=end, text=turn.speaker))
    path.write_text(subtitles.to_string(subtitle_format), encoding="utf-8")


def _write_textgrid(path: Path, conversation: Conversation) -> None:
    textgrid = import_module("praatio.textgrid")
    grid = textgrid.Textgrid(0, conversation.duration_s)
    for speaker in conversation.speakers:
        entries = [(turn.start_s, turn.end_s, speaker) for turn in conversation.of(speaker)]
        grid.addTier(textgrid.IntervalTier(speaker, entries, 0, conversation.duration_s))
    grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)


def _write_eaf(path: Path, conversation: Conversation) -> None:
    document = import_module("pympi").Elan.Eaf(author="audiosr")
    for speaker in conversation.speakers:
        document.add_tier(speaker, part=speaker)
        for turn in conversation.of(speaker):
            document.add_annotation(speaker, round(1000 * turn.start_s), round(1000 * turn.end_s), speaker)
    document.remove_tier("default")
    document.to_file(str(path))


_WRITERS: dict[LabelFormat, Callable[[Path, Conversation], None]] = {
    "rttm": _write_rttm,
    "audacity": _write_audacity,
    "srt": lambda path, conversation: _write_subtitles(path, conversation, "srt"),
    "vtt": lambda path, conversation: _write_subtitles(path, conversation, "vtt"),
    "textgrid": _write_textgrid,
    "json": _write_json,
    "eaf": _write_eaf,
}
