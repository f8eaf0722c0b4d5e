"""The options that say who speaks when: of separate, separate-sr and turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from audiosr_cli.cli.commands import TURNS, expand
from audiosr_cli.errors import UsageError

if TYPE_CHECKING:
    from audiosr_cli.conversation.turns import TurnConfig
    from audiosr_cli.streaming.labelling import Labels

_Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FORMATS",
        rich_help_panel=TURNS,
        help="Write who speaks when as rttm, audacity, srt, vtt, textgrid, json or eaf; several with commas.",
    ),
]
_Gate = Annotated[
    bool,
    typer.Option(
        "--gate",
        rich_help_panel=TURNS,
        help="Turn each track down by 40 dB where its speaker does not speak, so that nobody hears what leaks.",
    ),
]
_MinTurn = Annotated[
    float,
    typer.Option(
        "--min-turn", metavar="SECONDS", min=0.0, rich_help_panel=TURNS, help="Shorter turns are left out of labels."
    ),
]
_MinPause = Annotated[
    float,
    typer.Option(
        "--min-pause", metavar="SECONDS", min=0.0, rich_help_panel=TURNS, help="Shorter pauses do not end a turn."
    ),
]
_TurnLabels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FORMATS",
        rich_help_panel=TURNS,
        help="What is written: rttm, audacity, srt, vtt, textgrid, json or eaf; several with commas. [default: rttm]",
    ),
]
_MIN_TURN_S, _MIN_PAUSE_S = 0.3, 0.5  # the defaults of TurnConfig, which the help must not load


@dataclass(frozen=True)
class LabelOptions:
    """The options of labels beside audio."""

    labels: _Labels = None
    gate: _Gate = False
    min_turn: _MinTurn = _MIN_TURN_S
    min_pause: _MinPause = _MIN_PAUSE_S

    def combined(self) -> Labels | None:
        """Return what is found of turns and written; None if nobody asks for it.

        Raises:
            UsageError: If a format is unknown, or options have no effect.
        """
        from audiosr_cli.conversation.labels import parse_formats
        from audiosr_cli.streaming.labelling import Labels

        if self.labels is not None or self.gate:
            formats = parse_formats(self.labels) if self.labels is not None else ()
            return Labels(formats, _config(self.min_turn, self.min_pause), gate=self.gate)
        if (self.min_turn, self.min_pause) != (_MIN_TURN_S, _MIN_PAUSE_S):
            raise UsageError(
                "--min-turn and --min-pause have no effect without turns; give --labels FORMATS, or --gate"
            )
        return None


@dataclass(frozen=True)
class TurnOptions:
    """The options of labels without audio."""

    labels: _TurnLabels = None
    min_turn: _MinTurn = _MIN_TURN_S
    min_pause: _MinPause = _MIN_PAUSE_S

    def combined(self) -> Labels:
        """Return what is found of turns and written. Raises UsageError if a format is unknown."""
        from audiosr_cli.conversation.labels import parse_formats
        from audiosr_cli.streaming.labelling import Labels

        return Labels(parse_formats(self.labels or "rttm"), _config(self.min_turn, self.min_pause), audio=False)


def _config(min_turn_s: float, min_pause_s: float) -> TurnConfig:
    """Return the config for these lengths; margins stay within the pauses."""
    from audiosr_cli.conversation.turns import TurnConfig

    margin_s = min(TurnConfig.margin_s, min_pause_s / 2)
    return TurnConfig(turn_s=min_turn_s, pause_s=min_pause_s, margin_s=margin_s)


beside_audio = expand("labels", LabelOptions)  # decorators of the commands
alone = expand("labels", TurnOptions)
