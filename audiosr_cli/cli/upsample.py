"""``audiosr upsample``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiosr_cli.cli import common

if TYPE_CHECKING:
    from audiosr_cli.pipeline import Pipeline
    from audiosr_cli.stages import Options


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
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="audiosr: steps of diffusion; 0 is what is to be expected. [default: 8]"),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="audiosr: above 1 exaggerates what the low band asks for.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="audiosr: another seed draws other highs.")] = None,
    *,
    shared: common.Shared,
) -> None:
    """Restore the bandwidth of narrow recordings, up to --rate.

    Writes in_48000.wav for in.wav and prints its name; from standard input, to standard output.
    """
    from audiosr_cli import api

    if inputs == ["-"] and shared.output is None and not shared.as_json:
        shared = replace(shared, output="-")
    given = {"steps": steps, "guidance": guidance, "seed": seed}

    def make(options: Options) -> Pipeline:
        from audiosr_cli.models.audiosr import Sampling

        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return api.upsampling(rate, model, options, cutoff, Sampling(**chosen) if chosen else None)

    common.run_batch(inputs, make, "{stem}_{rate}.{ext}", shared)
