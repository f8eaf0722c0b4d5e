"""``audiosr models``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from audiosr_cli.cli import console, options
from audiosr_cli.errors import ModelError, UsageError

app = typer.Typer(no_args_is_help=True, help="What models there are, and whether they are whole.")


@app.command("list")
@options.guarded
def list_models(as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False) -> None:
    """Name every bundled model with its task, rates, size and where its weights come from."""
    from audiosr_cli.checkpoints import catalogue

    rows = {}
    for name, entry in catalogue.entries().items():
        path = catalogue.folder() / entry["file"]
        known = catalogue.metadata(path)
        rows[name] = {"tasks": entry["tasks"], "bytes": path.stat().st_size, **known}
    if as_json:
        console.put(json.dumps(rows))
        return
    for name, row in rows.items():
        spec, tasks = row["spec"], ", ".join(row["tasks"])
        rates = f"{spec['in_rate']} → {spec['in_rate'] * spec['ratio']} Hz"
        size = f"{row['bytes'] / 1e6:.1f} MB"
        console.put(f"{name:12} {tasks:12} {rates:18} sources {spec['sources']}  {size}  {row['model']}")


@app.command("verify")
@options.guarded
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODELS...",
            show_default=False,
            help="Names, .safetensors files, or parts of them. [default: all bundled models]",
        ),
    ] = None,
) -> None:
    """Check models: the SHA-256 of bundled ones and of parts, their metadata, and that the weights are finite and fit.

    Give a checkpoint in parts by any of its parts, or by the name that it would have in one file.
    """
    from audiosr_cli.checkpoints import catalogue, store

    broken = 0
    for name in models or catalogue.entries():
        try:
            store.load_model(name)
            console.put(f"{name}: ok")
        except ModelError as error:
            broken += 1
            console.put(f"{name}: {error}")
    if broken:
        raise typer.Exit(1)


@app.command("import")
@options.guarded
def import_checkpoint(
    source: Annotated[Path, typer.Argument(help="A folder with SpeechBrain's SepFormer, or Asteroid's file.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write, for --model.")],
    sample_rate: Annotated[int | None, typer.Option("--sample-rate", help="In Hz, where the source is silent.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Turn a public checkpoint into one of ours: SpeechBrain SepFormer, Asteroid ConvTasNet or DPRNNTasNet.

    None of its code is run, and no digit of its weights is lost. Its licence stays what it is.
    """
    from audiosr_cli.checkpoints import store
    from audiosr_cli.checkpoints.convert import import_model

    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: a name that ends in .safetensors is wanted")
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: exists already; use --overwrite")
    model = import_model(source, target.stem, sample_rate)
    if source.is_dir() and sample_rate is None:
        print(f"audiosr: {source}: tells no sample rate; 8000 Hz is taken (see --sample-rate)", file=sys.stderr)
    store.save_model(model, target, {"imported": source.name}, storage="float32")
    console.put(str(target))
