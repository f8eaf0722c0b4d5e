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

from audiosr_cli.cli import console
from audiosr_cli.errors import UsageError


def train(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG...", help="The run as TOML; see examples/train/*.toml. Several with --pack."),
    ],
    data: Annotated[
        Path, typer.Option("--data", envvar="AUDIOSR_DATA", help="Folder that the config's folders are relative to.")
    ] = Path(),
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder. [default: runs/CONFIG]")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Budget over all resumes, in place of the config's.")
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(
            "--until",
            metavar="SECONDS",
            min=1,
            help="Finish everything, validation and files included, so many seconds after this process started.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")] = False,
    init: Annotated[
        list[str] | None,
        typer.Option(
            "--init",
            help="Start from these weights: a bundled model or a .safetensors file. With --pack once for each CONFIG, "
            "or once for all; none for fresh weights.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Copy the best weights here in the end: a folder or a .safetensors file."),
    ] = None,
    export_every: Annotated[
        float | None,
        typer.Option(
            "--export-every",
            metavar="SECONDS",
            min=1,
            help="Write the current weights to the folder --export this often, and at the end, instead of the best.",
        ),
    ] = None,
    part_mib: Annotated[
        float,
        typer.Option(
            "--part-mib", min=0.001, help="Largest file of --export-every in MiB; larger weights are written in parts."
        ),
    ] = 15.0,
    batch_size: Annotated[
        str | None,
        typer.Option(
            "--batch-size",
            metavar="N|auto",
            help="Override the config's batch size; auto measures which is fastest on this machine.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Curves for TensorBoard in --out, too (an extra).")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where to train.")] = "auto",
    pack: Annotated[
        Path | None,
        typer.Option(
            "--pack",
            metavar="DIR",
            help="Do not train: put all that these runs need into the folder DIR, for a machine without network.",
        ),
    ] = None,
    pack_mib: Annotated[
        float,
        typer.Option(
            "--pack-mib", min=1, help="Size limit of --pack in MiB; recordings that do not fit go to DIR-rest."
        ),
    ] = 55.0,
) -> None:
    """Train a model on your own recordings: a JSON object on standard error at every validation.

    The best weights land in --out as a .safetensors file that --model takes. Ctrl-C, SIGTERM and the end of
    the budget leave a state that --resume goes on from; so does a kill, a minute of work less. Under torchrun
    several processes or machines train together.
    """
    from audiosr_cli.runtime.memory import keep_freed_memory

    keep_freed_memory()
    if pack is not None:
        _pack(configs, data, pack, pack_mib, init or [])
        return
    from audiosr_cli.runtime.device import pick_device
    from audiosr_cli.train.run import TrainCall
    from audiosr_cli.train.run import train as run

    if len(configs) > 1 or len(init or []) > 1:
        raise UsageError("one CONFIG and one --init train at a time; several are for --pack")
    call = TrainCall(
        data,
        minutes,
        resume,
        pick_device(device),
        init[0] if init else None,
        export,
        tensorboard,
        until,
        export_every,
        round(part_mib * 2**20),
        None if batch_size is None else batch_size_of(batch_size),
    )
    with reporting() as report:
        best = run(configs[0], out or Path("runs") / configs[0].stem, report, call)
    if int(os.environ.get("RANK", "0")) == 0:  # of all that torchrun started, one speaks
        console.print_output(str(best))


def batch_size_of(text: str) -> int:
    """Read the text of ``--batch-size``.

    Returns:
        The batch size, 0 for ``auto``.

    Raises:
        UsageError: If ``text`` is neither ``auto`` nor a whole number of at least 1.
    """
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: must be a whole number of at least 1, or auto")
    return int(text)


def _pack(configs: list[Path], data: Path, target: Path, mib: float, init: list[str]) -> None:
    from audiosr_cli.train.pack import pack

    with reporting() as report:
        pack(configs, data, target, round(mib * 2**20), init, report)
    console.print_output(str(target))


@contextmanager
def reporting() -> Iterator[Callable[[dict[str, Any]], None]]:
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
                at = f"step {row['step']}, loss {row['loss']:.3f}, {row['audio_hours']:.2f} h heard{pace}"
                bar.update(task, completed=min(row["share_done"], 1.0), at=at)
                return
            if "audio_hours_per_minute" in row:
                pace = f", {row['audio_hours_per_minute']:.2f} h a minute"
            if row["event"] != "train":
                console.print(json.dumps(row), markup=False, soft_wrap=True)

        yield report
