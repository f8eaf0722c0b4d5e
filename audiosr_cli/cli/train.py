"""``audiosr train``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def train(
    config: Annotated[Path, typer.Argument(help="The run as TOML; see examples/*.toml.")],
    data: Annotated[Path, typer.Option("--data", help="The folder that the config's folders lie in.")] = Path(),
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder. [default: runs/CONFIG]")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Budget over all resumes, for the config's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where to train.")] = "auto",
) -> None:
    """Train a model on your own recordings; prints a line of figures at every validation.

    The best weights land in --out as a .safetensors file that --model takes.
    """
    from audiosr_cli.api import pick_device
    from audiosr_cli.train.run import train as run

    def report(row: dict[str, Any]) -> None:
        print(json.dumps(row), file=sys.stderr, flush=True)

    best = run(config, data, out or Path("runs") / config.stem, report, minutes, resume, pick_device(device))
    print(best)
