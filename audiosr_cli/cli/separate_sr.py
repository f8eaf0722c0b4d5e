"""``audiosr separate-sr``."""

from __future__ import annotations

from typing import Annotated

import typer

from audiosr_cli.cli import common


@common.processing
def separate_sr(
    inputs: common.Inputs,
    speakers: common.Speakers = 2,
    rate: Annotated[int | None, typer.Option("--rate", help="Sample rate in Hz. [default: the input's]")] = None,
    model: common.Model = None,
    restorer: Annotated[
        str | None, typer.Option("--restorer", help="What brings the highs back from the mixture, or none.")
    ] = None,
    upsampler: common.Upsampler = None,
    *,
    shared: common.Shared,
) -> None:
    """Separate at a low rate, then bring back every speaker's full band from the mixture.

    Names and levels are those of separate. A --rate above the input's has an upsampler behind.
    """
    from audiosr_cli import api

    common.run_batch(
        inputs,
        lambda options: api.restoration(speakers, rate, model, restorer, upsampler, options),
        "{stem}_{speaker}.{ext}",
        shared,
    )
