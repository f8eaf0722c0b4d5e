"""What the report of a recording says about the number of its speakers."""

from __future__ import annotations

from audiosr_cli.streaming.counting import SpeakerCount
from audiosr_cli.streaming.counting_config import COUNTING
from audiosr_cli.streaming.report import Report


def add_count(report: Report, count: SpeakerCount | None) -> None:
    """Add the number of speakers to the report of a recording, if it was counted."""
    if count is None:
        return
    report.speakers, report.speakers_confidence = count.speakers, count.confidence
    report.elapsed_s += count.elapsed_s
    people = "1 speaker" if count.speakers == 1 else f"{count.speakers} speakers"
    where = f", counted in {count.where}" if count.where else ""
    report.notes.insert(0, f"{report.input}: {people} (confidence {count.confidence:.2f}{where})")
    if not count.voices:
        report.warnings.append(f"{report.input}: no speech was found to count speakers in; it is treated as 1 speaker")
    elif count.voices > count.speakers:
        report.warnings.append(
            f"{report.input}: {count.voices} voices were found; at most {count.speakers} can be separated"
        )
    elif count.confidence < COUNTING.uncertain:
        report.warnings.append(
            f"{report.input}: the number of speakers is uncertain ({count.speakers}, confidence "
            f"{count.confidence:.2f}); use --speakers N if you know it"
        )
