"""The options that say who speaks when: of separate, separate-sr and turns."""

from __future__ import annotations

from typing import Annotated

import typer

from audiosr_cli.cli.commands import TURNS

Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FORMATS",
        rich_help_panel=TURNS,
        help="Write who speaks when as rttm, audacity, srt, vtt, textgrid, json or eaf; several with commas.",
    ),
]
Gate = Annotated[
    bool,
    typer.Option(
        "--gate",
        rich_help_panel=TURNS,
        help="Turn each track down by 40 dB where its speaker does not speak, so that nobody hears what leaks.",
    ),
]
MinTurn = Annotated[
    float,
    typer.Option(
        "--min-turn", metavar="SECONDS", min=0.0, rich_help_panel=TURNS, help="Shorter turns are left out of labels."
    ),
]
MinPause = Annotated[
    float,
    typer.Option(
        "--min-pause", metavar="SECONDS", min=0.0, rich_help_panel=TURNS, help="Shorter pauses do not end a turn."
    ),
]
