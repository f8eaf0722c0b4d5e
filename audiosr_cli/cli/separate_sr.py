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
    upsampler: common.Upsampler = None,
    *,
    shared: common.Shared,
) -> None:
    """Separate at a low rate, then restore the bandwidth of every speaker.

    Today a plain cascade of separate and upsample: the second half does not see the mixture yet.
    """
    from audiosr_cli import api

    common.run_batch(
        inputs,
        lambda options: api.cascade(speakers, rate, model, upsampler, options),
        "{stem}_{speaker}.{ext}",
        shared,
    )
