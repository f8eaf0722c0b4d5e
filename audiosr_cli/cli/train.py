"""``audiosr train``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from audiosr_cli.cli import streams


def train(
    config: Annotated[Path, typer.Argument(help="The run as TOML; see examples/train/*.toml.")],
    data: Annotated[Path, typer.Option("--data", help="The folder that the config's folders lie in.")] = Path(),
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder. [default: runs/CONFIG]")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Budget over all resumes, for the config's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")] = False,
    init: Annotated[
        str | None, typer.Option("--init", help="Start from these weights: a bundled model or a .safetensors file.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Copy the best weights here in the end: a folder or a .safetensors file."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Curves for TensorBoard in --out, too (an extra).")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where to train.")] = "auto",
) -> None:
    """Train a model on your own recordings: a JSON object on standard error at every validation.

    The best weights land in --out as a .safetensors file that --model takes. Ctrl-C, SIGTERM and the end of
    the budget leave a state that --resume goes on from; so does a kill, a minute of work less. Under torchrun
    several processes or machines train together.
    """
    from audiosr_cli.allocator import keep_freed_memory
    from audiosr_cli.device import pick_device
    from audiosr_cli.train.run import Call
    from audiosr_cli.train.run import train as run

    keep_freed_memory()
    call = Call(data, minutes, resume, pick_device(device), init, export, tensorboard)
    with _reporting() as report:
        best = run(config, out or Path("runs") / config.stem, report, call)
    if int(os.environ.get("RANK", "0")) == 0:  # of all that torchrun started, one speaks
        streams.put(str(best))


@contextmanager
def _reporting() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Rows as lines of JSON on standard error; the steps between them as a bar where that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda row: None if row["event"] == "step" else print(json.dumps(row), file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.percentage:.1f} %"), TextColumn("{task.fields[at]}"))
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=1.0, at="")
        pace = ""

        def report(row: dict[str, Any]) -> None:
            nonlocal pace
            if row["event"] == "step":
                at = f"step {row['step']}, loss {row['loss']:.3f}, {row['hours_heard']:.2f} h heard{pace}"
                bar.update(task, completed=min(row["share_done"], 1.0), at=at)
                return
            if "hours_per_minute" in row:
                pace = f", {row['hours_per_minute']:.2f} h a minute"
            if row["event"] != "train":
                console.print(json.dumps(row), markup=False, soft_wrap=True)

        yield report
