"""``audiosr upsample``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from audiosr_cli.cli import common


@common.processing
def upsample(
    inputs: common.Inputs,
    rate: Annotated[int, typer.Option("--rate", help="The output's sample rate in Hz.")] = 48000,
    model: Annotated[
        str | None, typer.Option("--model", help="A bundled model's name, a .safetensors file, or none: resample only.")
    ] = None,
    cutoff: Annotated[
        float | None, typer.Option("--cutoff", help="Where the content ends, in Hz. [default: found by listening]")
    ] = None,
    *,
    shared: common.Shared,
) -> None:
    """Restore the bandwidth of narrow recordings, up to --rate.

    Writes in_48000.wav for in.wav and prints its name; from standard input, to standard output.
    """
    from audiosr_cli import api

    if inputs == ["-"] and shared.output is None and not shared.as_json:
        shared = replace(shared, output="-")
    common.run_batch(
        inputs, lambda options: api.upsampling(rate, model, options, cutoff), "{stem}_{rate}.{ext}", shared
    )
