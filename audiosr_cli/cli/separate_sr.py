"""``audiosr separate-sr``."""

from __future__ import annotations

from typing import Annotated

import typer

from audiosr_cli.cli import common, running


@common.processing
def separate_sr(
    inputs: common.Inputs = None,
    speakers: common.Speakers = 2,
    rate: Annotated[int | None, typer.Option("--rate", help="Sample rate in Hz. [default: the input's]")] = None,
    model: common.Model = None,
    restorer: Annotated[
        str | None,
        typer.Option(
            "--restorer", help="What brings highs back from the mixture: a model's name, a .safetensors file, or none."
        ),
    ] = None,
    upsampler: common.Upsampler = None,
    *,
    shared: common.Shared,
) -> None:
    """Separate at a low rate, then restore the bandwidth of every speaker.

    By a network that hears the mixture beside the speakers, up to the input's rate; what a higher --rate asks for is
    added by upsampling, which is all there is with --restorer none.
    """
    from audiosr_cli import api

    values = {"speakers": speakers, "rate": rate, "model": model, "restorer": restorer, "upsampler": upsampler}
    running.run_batch(inputs, api.restoration, values, "{stem}_{speaker}.{ext}", shared)
