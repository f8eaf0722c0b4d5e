"""``audiosr models``."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated

import typer

from audiosr_cli.cli import console, values
from audiosr_cli.cli.commands import GroupedCommand, guarded
from audiosr_cli.errors import ModelError, UsageError

app = typer.Typer(no_args_is_help=True, help="List, verify and import models.")


@app.command("list", cls=GroupedCommand)
@guarded
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the bundled models with their tasks, sample rates and sizes."""
    from audiosr_cli.checkpoints import catalogue

    rows = {}
    for name, entry in catalogue.entries().items():
        path = catalogue.folder() / entry["file"]
        rows[name] = {"tasks": entry["tasks"], "bytes": path.stat().st_size, **catalogue.metadata(path)}
    if as_json:
        console.print_output(json.dumps(rows))
        return
    width = max(map(len, rows))
    for name, row in rows.items():
        spec, tasks = row["spec"], ", ".join(row["tasks"])
        rates = f"{spec['in_rate']} → {spec['in_rate'] * spec['ratio']} Hz"
        size = f"{row['bytes'] / 1e6:.1f} MB"
        sources = "speech and rest" if spec["rest"] else f"sources {spec['sources']}"
        console.print_output(f"{name:{width}}  {tasks:11}  {rates:16}  {sources:15}  {size:>7}  {row['model']}")


@app.command("verify", cls=GroupedCommand)
@guarded
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODELS",
            show_default=False,
            help="Names of bundled models, .safetensors files, or parts of such files. [default: all bundled models]",
        ),
    ] = None,
) -> None:
    """Check that models are complete and undamaged.

    Checks the SHA-256 of bundled models and of parts, the metadata, and that all weights are finite and have the right
    shapes. For a checkpoint in parts, give any part, or the name that it would have as one file.
    """
    from audiosr_cli.checkpoints import catalogue, store

    broken = 0
    for name in models or catalogue.entries():
        try:
            store.load_model(name)
            console.print_output(f"{name}: ok")
        except ModelError as error:
            broken += 1
            console.print_output(f"{name}: {error}")
    if broken:
        raise typer.Exit(1)


@app.command("import", cls=GroupedCommand)
@guarded
def import_checkpoint(
    source: Annotated[Path, typer.Argument(help="Folder of a SpeechBrain SepFormer, or file of an Asteroid model.")],
    target: Annotated[Path, typer.Argument(help=".safetensors file to write, for --model.")],
    sample_rate: Annotated[
        int | None,
        typer.Option(
            "--sample-rate",
            metavar="HZ",
            parser=functools.partial(values.parse_rate, option="--sample-rate"),
            help="Sample rate, if the checkpoint does not state it.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", "-y", help="Replace the file if it exists.")] = False,
) -> None:
    """Convert a public checkpoint for use with --model.

    Reads SpeechBrain SepFormer, Asteroid ConvTasNet and Asteroid DPRNNTasNet. The weights are converted exactly, and no
    code of the checkpoint is run. Its licence still applies.
    """
    from audiosr_cli.checkpoints import store
    from audiosr_cli.checkpoints.convert import import_model

    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: expected a name that ends in .safetensors")
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: already exists; use --overwrite")
    model = import_model(source, target.stem, sample_rate)
    if source.is_dir() and sample_rate is None:
        console.print_message(f"{source}: states no sample rate; using 8000 Hz (see --sample-rate)")
    store.save_model(model, target, {"imported": source.name}, storage="float32")
    console.print_output(str(target))
