"""The command that ``run.sh`` of a kit runs: ``python -m audiosr_cli.cli.kit KIT``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from audiosr_cli.cli import console
from audiosr_cli.cli.commands import GroupedCommand, guarded
from audiosr_cli.cli.main import call
from audiosr_cli.cli.train_options import (
    DATA,
    OUTPUT,
    RESUME,
    SCHEDULE,
    BatchSize,
    Device,
    PartMib,
    parse_batch_size,
    printed_events,
)

app = typer.Typer(
    name="run.sh", add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
)


_Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG...", show_default=False, rich_help_panel=DATA, help="Names of the runs. [default: all]"
    ),
]
_Minutes = Annotated[
    float,
    typer.Option(
        "--minutes",
        min=0.1,
        rich_help_panel=SCHEDULE,
        help="Finish everything within this many minutes from the start of this script.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="DIR",
        rich_help_panel=OUTPUT,
        help="Folder for weights and report.json. [default: $OUT, or output in the kit]",
    ),
]
_ExportEvery = Annotated[
    float,
    typer.Option(
        "--export-every",
        metavar="SECONDS",
        min=1,
        rich_help_panel=OUTPUT,
        help="Seconds between exports of the current weights.",
    ),
]
_Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        rich_help_panel=RESUME,
        help="Folder for states and decoded recordings, from which a second call continues. [default: the kit]",
    ),
]


@app.command(cls=GroupedCommand)
@guarded
def kit(
    folder: Annotated[Path, typer.Argument(hidden=True)],
    names: _Names = None,
    minutes: _Minutes = 9.5,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    output: _Output = None,
    export_every: _ExportEvery = 60.0,
    part_mib: PartMib = 15.0,
    work: _Work = None,
) -> None:
    """Train the runs of this kit one after the other, without network and within a time limit.

    Weights are exported every minute, so that they exist whenever this script is stopped. A second call on the same
    machine continues. At the end, prints the speed and the scores of the runs.
    """
    folder = folder.absolute()
    work = (work or folder).absolute()
    output = (output or Path(os.environ.get("OUT") or folder / "output")).absolute()
    os.environ.setdefault("AUDIOSR_CACHE", str(work / "cache"))
    os.chdir(folder)  # configs may name weights in the kit
    from audiosr_cli.runtime.device import pick_device
    from audiosr_cli.runtime.memory import keep_freed_memory
    from audiosr_cli.train.kit import KitCall, run_kit, table

    keep_freed_memory()
    kit_call = KitCall(
        folder=folder,
        output=output,
        work=work,
        seconds=minutes * 60,
        names=names or (),
        device=pick_device(device),
        export_every=export_every,
        part_bytes=round(part_mib * 2**20),
        batch_size=parse_batch_size(batch_size),
    )
    with printed_events() as on_event:
        rows = run_kit(kit_call, on_event)
    console.print_output(table(rows))
    if any("error" in row for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    call(app)
