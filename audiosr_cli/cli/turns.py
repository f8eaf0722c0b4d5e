"""``audiosr turns``."""

from __future__ import annotations

from typing import Annotated

import typer

from audiosr_cli.cli import label_options, options, run_batch, values
from audiosr_cli.cli.commands import TURNS
from audiosr_cli.errors import UsageError

_Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FORMATS",
        rich_help_panel=TURNS,
        help="What is written: rttm, audacity, srt, vtt, textgrid, json or eaf; several with commas. [default: rttm]",
    ),
]


@options.processing
def turns(
    inputs: options.Inputs = None,
    labels: _Labels = None,
    min_turn: label_options.MinTurn = 0.3,
    min_pause: label_options.MinPause = 0.5,
    speakers: options.Speakers = 2,
    model: options.Model = None,
    quality: options.Quality = "standard",
    hum: options.Hum = "remove",
    *,
    shared: options.Shared,
) -> None:
    """Write who speaks when, overlaps included, and no audio.

    For talk.wav it writes talk_turns.rttm, or what --labels names. Speakers are separated as audiosr separate does it;
    the times are those of its tracks. A single format can go to standard output: -o -
    """
    from audiosr_cli.pipelines import TurnsOptions

    for option, value in (
        ("--format", shared.container),
        ("--subtype", shared.subtype),
        ("--bitrate", shared.bitrate),
        ("--spectrogram", shared.spectrogram),
    ):
        if value is not None:
            raise UsageError(f"{option} {value}: turns writes no audio; leave {option} out")
    wanted = values.parse_labels(labels or "rttm", min_turn, min_pause, audio=False)
    command = TurnsOptions(speakers, model, False, hum, quality, wanted)
    run_batch.run_batch(inputs, command, "{stem}_{speaker}.{ext}", shared)
