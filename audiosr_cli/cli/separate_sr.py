"""``audiosr separate-sr``."""

from __future__ import annotations

from typing import Annotated

import typer

from audiosr_cli.cli import options, run_batch


@options.processing
def separate_sr(
    inputs: options.Inputs = None,
    speakers: options.Speakers = 2,
    rate: Annotated[int | None, typer.Option("--rate", help="Sample rate in Hz. [default: the input's]")] = None,
    model: options.Model = None,
    restorer: Annotated[
        str | None,
        typer.Option(
            "--restorer", help="What brings highs back from the mixture: a model's name, a .safetensors file, or none."
        ),
    ] = None,
    upsampler: options.Upsampler = None,
    *,
    shared: options.Shared,
) -> None:
    """Separate at a low rate, then restore the bandwidth of every speaker.

    By a network that hears the mixture beside the speakers, up to the input's rate; what a higher --rate asks for is
    added by upsampling, which is all there is with --restorer none.
    """
    from audiosr_cli.pipelines import SeparateSROptions

    command = SeparateSROptions(speakers, rate, model, restorer, upsampler)
    run_batch.run_batch(inputs, command, "{stem}_{speaker}.{ext}", shared)
