"""``audiosr upsample``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from audiosr_cli.cli import options, run_batch, values
from audiosr_cli.cli.commands import MODEL, OUTPUT

if TYPE_CHECKING:
    from audiosr_cli.models.diffusion import Sampling


_Rate = Annotated[
    int,
    typer.Option(
        "--rate",
        "-r",
        metavar="HZ",
        parser=values.parse_rate,
        rich_help_panel=OUTPUT,
        help="Sample rate of the output, such as 48000 or 48k.",
    ),
]
_Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        rich_help_panel=MODEL,
        help="Name of a bundled model, a .safetensors file, or none to only resample.",
    ),
]
_Kind = Annotated[
    Literal["auto", "speech", "music", "effects"],
    typer.Option(
        "--kind",
        rich_help_panel=MODEL,
        help="What is recorded, which chooses the model; effects are all other sounds. auto detects it in each "
        "recording, unless --model is given.",
    ),
]
_Cutoff = Annotated[
    float | None,
    typer.Option(
        "--cutoff",
        metavar="HZ",
        rich_help_panel=MODEL,
        help="Frequency above which content is missing. [default: detected]",
    ),
]
_Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        rich_help_panel=MODEL,
        help="audiosr_small: number of diffusion steps; 0 uses the deterministic estimate. [default: 4]",
    ),
]
_Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        metavar="SCALE",
        rich_help_panel=MODEL,
        help="audiosr_small: classifier-free guidance scale; values above 1 follow the low band more strongly. "
        "[default: 1]",
    ),
]
_Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        rich_help_panel=MODEL,
        help="audiosr_small: seed of the random numbers; another seed gives other highs. [default: 0]",
    ),
]


@options.processing
def upsample(
    inputs: options.Inputs = None,
    rate: _Rate = 48000,
    model: _Model = None,
    kind: _Kind = "auto",
    cutoff: _Cutoff = None,
    steps: _Steps = None,
    guidance: _Guidance = None,
    seed: _Seed = None,
    *,
    shared: options.Shared,
) -> None:
    """Restore the high frequencies of narrow-band recordings.

    For in.wav it writes in_48000.wav and prints its name. From standard input it writes to standard output.
    """
    from audiosr_cli.pipelines import UpsampleOptions

    piped = inputs == ["-"] and shared.files_from is None
    if piped and shared.output is None and not shared.as_json and not shared.dry_run:
        shared = replace(shared, output="-")
    command = UpsampleOptions(rate, model, cutoff, _sampling(steps, guidance, seed), kind=kind)
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
