"""``audiosr upsample``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from audiosr_cli.cli import options, run_batch

if TYPE_CHECKING:
    from audiosr_cli.models.diffusion import Sampling


@options.processing
def upsample(
    inputs: options.Inputs = None,
    rate: Annotated[int, typer.Option("--rate", help="The output's sample rate in Hz.")] = 48000,
    model: Annotated[
        str | None, typer.Option("--model", help="A bundled model's name, a .safetensors file, or none: resample only.")
    ] = None,
    cutoff: Annotated[
        float | None, typer.Option("--cutoff", help="Where the content ends, in Hz. [default: found by listening]")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="audiosr_small: steps of diffusion; 0 is what is to be expected. [default: 4]"),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="audiosr_small: above 1 exaggerates what the low band asks for.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="audiosr_small: another seed draws other highs.")] = None,
    *,
    shared: options.Shared,
) -> None:
    """Restore the bandwidth of narrow recordings, up to --rate.

    Writes in_48000.wav for in.wav and prints its name; from standard input, to standard output.
    """
    from audiosr_cli.pipelines import UpsampleOptions

    piped = inputs == ["-"] and shared.files_from is None
    if piped and shared.output is None and not shared.as_json and not shared.dry_run:
        shared = replace(shared, output="-")
    command = UpsampleOptions(rate, model, cutoff, _sampling(steps, guidance, seed))
    run_batch.run_batch(inputs, command, "{stem}_{rate}.{ext}", shared)


def _sampling(steps: int | None, guidance: float | None, seed: int | None) -> Sampling | None:
    """Combine the options of diffusion models with the defaults of those not given; None if none is given."""
    from audiosr_cli.models.diffusion import Sampling

    if steps is None and guidance is None and seed is None:
        return None
    default = Sampling()
    return Sampling(
        default.steps if steps is None else steps,
        default.guidance if guidance is None else guidance,
        default.seed if seed is None else seed,
    )
