"""The options of ``audiosr train`` and of a kit's ``run.sh``, and the events that both print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from audiosr_cli.cli import values
from audiosr_cli.cli.commands import expand
from audiosr_cli.errors import UsageError

DATA, MODEL, SCHEDULE, OUTPUT, RESUME, PACKING = "Data", "Model", "Schedule", "Output", "Resume", "Packing"

Configs = Annotated[
    list[Path],
    typer.Argument(
        metavar="CONFIG...",
        rich_help_panel=DATA,
        help="TOML file of the run; see examples/train/*.toml. Several are allowed with --pack.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda|cuda:N",
        parser=values.parse_device,
        rich_help_panel=MODEL,
        help="Where to train; auto uses CUDA if it is available. cuda:1 is the second GPU.",
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        "--batch-size",
        metavar="N|auto|config",
        rich_help_panel=SCHEDULE,
        help="Batch size. auto measures which size is fastest on this machine; config uses the config's.",
    ),
]
PartMib = Annotated[
    float,
    typer.Option(
        "--part-mib",
        metavar="MIB",
        min=0.001,
        rich_help_panel=OUTPUT,
        help="Largest file of exported weights in MiB; larger weights are split into parts.",
    ),
]


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``audiosr train``."""

    data: Annotated[
        Path,
        typer.Option(
            "--data",
            envvar="AUDIOSR_DATA",
            rich_help_panel=DATA,
            help="Folder that the config's folders are relative to.",
        ),
    ] = Path()
    init: Annotated[
        list[str] | None,
        typer.Option(
            "--init",
            metavar="MODEL",
            rich_help_panel=MODEL,
            help="Initial weights: name of a bundled model, or a .safetensors file. With --pack, give it once for all "
            "configs or once for each; none for random weights.",
        ),
    ] = None
    device: Device = "auto"
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            rich_help_panel=SCHEDULE,
            help="Training time in minutes, over all resumes. [default: the config's]",
        ),
    ] = None
    until: Annotated[
        float | None,
        typer.Option(
            "--until",
            metavar="SECONDS",
            min=1,
            rich_help_panel=SCHEDULE,
            help="Finish everything, including the last validation and all files, within this many seconds from the "
            "start of the process. Replaces --minutes.",
        ),
    ] = None
    batch_size: BatchSize = "config"
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            rich_help_panel=OUTPUT,
            help="Folder of the run: state, log and best weights. [default: runs/CONFIG]",
        ),
    ] = None
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", rich_help_panel=OUTPUT, help="Copy the best weights to this folder or .safetensors file."
        ),
    ] = None
    export_every: Annotated[
        float | None,
        typer.Option(
            "--export-every",
            metavar="SECONDS",
            min=1,
            rich_help_panel=OUTPUT,
            help="Export the current weights this often, and at the end, to the folder --export, instead of the best "
            "weights.",
        ),
    ] = None
    part_mib: PartMib = 15.0
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            rich_help_panel=OUTPUT,
            help="Write curves for TensorBoard into --out (needs audiosr-cli[tensorboard]).",
        ),
    ] = False
    resume: Annotated[
        bool, typer.Option("--resume", rich_help_panel=RESUME, help="Continue the run in --out, if there is one.")
    ] = False
    pack: Annotated[
        Path | None,
        typer.Option(
            "--pack",
            metavar="DIR",
            rich_help_panel=PACKING,
            help="Do not train. Pack everything that these runs need into DIR, for a machine without network.",
        ),
    ] = None
    pack_mib: Annotated[
        float,
        typer.Option(
            "--pack-mib",
            metavar="MIB",
            min=1,
            rich_help_panel=PACKING,
            help="Largest size of --pack in MiB; recordings that do not fit go to DIR-rest.",
        ),
    ] = 55.0


with_train_options = expand("options", TrainOptions)


def parse_batch_size(text: str) -> int | None:
    """Parse the value of ``--batch-size``.

    Returns:
        The batch size, 0 for ``auto``, None for ``config``.

    Raises:
        UsageError: If ``text`` is none of these.
    """
    if text in ("auto", "config"):
        return 0 if text == "auto" else None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: must be a whole number of at least 1, auto or config")
    return int(text)


@contextmanager
def printed_events() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Print the events of a run as JSON lines on standard error; on a terminal, show steps as a progress bar.

    Yields:
        A callback for events.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda row: None if row["event"] == "step" else print(json.dumps(row), file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.percentage:.1f} %"), TextColumn("{task.fields[position]}"))
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=1.0, position="")
        speed = ""

        def show(row: dict[str, Any]) -> None:
            nonlocal speed
            if row["event"] == "step":
                position = f"step {row['step']}, loss {row['loss']:.3f}, {row['audio_hours']:.2f} h of audio{speed}"
                bar.update(task, completed=min(row["share_done"], 1.0), position=position)
                return
            if isinstance(row.get("audio_hours_per_minute"), float):
                speed = f", {row['audio_hours_per_minute']:.2f} h per minute"
            if row["event"] != "train":
                console.print(json.dumps(row), markup=False, soft_wrap=True)

        yield show
