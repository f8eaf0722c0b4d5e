"""What ``run.sh`` of a kit calls: ``python -m audiosr_cli.cli.kit KIT``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from audiosr_cli.cli import console
from audiosr_cli.cli.main import call
from audiosr_cli.cli.options import guarded
from audiosr_cli.cli.train import batch_size_of, reporting

app = typer.Typer(
    name="run.sh", add_completion=False, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
)


@app.command()
@guarded
def kit(
    folder: Annotated[Path, typer.Argument(hidden=True)],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="CONFIG...", show_default=False, help="Which runs. [default: all]")
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            "--minutes", min=0.1, help="When everything is finished, in minutes from the start of this script."
        ),
    ] = 9.5,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Where weights and report.json go. [default: $OUT, or output in the kit]"),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Where states and decoded recordings stay, for a second call. [default: the kit]"),
    ] = None,
    export_every: Annotated[
        float, typer.Option("--export-every", metavar="SECONDS", min=1, help="How often weights are written.")
    ] = 60.0,
    part_mib: Annotated[float, typer.Option("--part-mib", min=0.001, help="Largest file of weights in MiB.")] = 15.0,
    batch_size: Annotated[
        str,
        typer.Option("--batch-size", metavar="N|auto|config", help="auto measures which is fastest on this machine."),
    ] = "auto",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where to train.")] = "auto",
) -> None:
    """Train the runs of this kit, one after the other, without network and within a time limit.

    Weights are written every minute, so that they are there whenever this is stopped. Called again on the same machine,
    it goes on. Prints how fast the runs were, and their scores.
    """
    folder = folder.absolute()
    work = (work or folder).absolute()
    output = (output or Path(os.environ.get("OUT") or folder / "output")).absolute()
    os.environ.setdefault("AUDIOSR_CACHE", str(work / "cache"))
    os.chdir(folder)  # configs may name weights in it
    from audiosr_cli.runtime.device import pick_device
    from audiosr_cli.runtime.memory import keep_freed_memory
    from audiosr_cli.train.kit import KitCall, run_kit, table

    keep_freed_memory()
    with reporting() as report:
        rows = run_kit(
            KitCall(
                folder,
                output,
                work,
                minutes * 60,
                names or (),
                pick_device(device),
                export_every,
                round(part_mib * 2**20),
                None if batch_size == "config" else batch_size_of(batch_size),
            ),
            report,
        )
    console.print_output(table(rows))
    if any("error" in row for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    call(app)
