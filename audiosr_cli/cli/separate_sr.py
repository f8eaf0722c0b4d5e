"""``audiosr separate-sr``."""

from __future__ import annotations

from typing import Annotated

import typer

from audiosr_cli.cli import label_options, options, run_batch, values
from audiosr_cli.cli.commands import MODEL, OUTPUT

_Rate = Annotated[
    int | None,
    typer.Option(
        "--rate",
        "-r",
        metavar="HZ",
        parser=values.parse_rate,
        rich_help_panel=OUTPUT,
        help="Sample rate of the outputs, such as 48000 or 48k. [default: the input's]",
    ),
]
_Restorer = Annotated[
    str | None,
    typer.Option(
        "--restorer",
        metavar="MODEL",
        rich_help_panel=MODEL,
        help="Model that restores each speaker's highs from the mixture, or none.",
    ),
]
_Upsampler = Annotated[
    str | None,
    typer.Option(
        "--upsampler",
        metavar="MODEL",
        rich_help_panel=MODEL,
        help="Model that restores highs above the input's bandwidth.",
    ),
]


@options.processing
@label_options.beside_audio
def separate_sr(
    inputs: options.Inputs = None,
    speakers: options.Speakers = 2,
    rate: _Rate = None,
    model: options.Model = None,
    quality: options.Quality = "standard",
    restorer: _Restorer = None,
    upsampler: _Upsampler = None,
    hum: options.Hum = "remove",
    *,
    labels: label_options.LabelOptions,
    shared: options.Shared,
) -> None:
    """Separate speakers and restore each one's bandwidth.

    Separation runs at a low sample rate. A second model restores each speaker's high frequencies from the mixture, up
    to the input's bandwidth. With a higher --rate, or --restorer none, an upsampling model restores the rest.

    With --speakers 1 it removes noise: a noisy call becomes clear speech of full bandwidth with --rate 48000.
    """
    from audiosr_cli.pipelines import SeparateSROptions

    command = SeparateSROptions(speakers, rate, model, restorer, upsampler, hum, quality, labels.combined())
    run_batch.run_batch(inputs, command, "{stem}_{speaker}.{ext}", shared)
