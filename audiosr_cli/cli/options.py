"""The options that the processing commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from audiosr_cli.cli import values
from audiosr_cli.cli.commands import BATCH, DEFAULTS, INPUT, MESSAGES, MODEL, OUTPUT, expand

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUTS",
        show_default=False,
        rich_help_panel=INPUT,
        help="Recordings, folders of recordings, 'globs', @lists of paths, or - for standard input.",
    ),
]
Speakers = Annotated[
    Any,  # int or "auto"; typer knows no such union
    typer.Option(
        "--speakers",
        "-s",
        metavar="N|auto",
        parser=values.parse_speakers,
        rich_help_panel=MODEL,
        help="Number of speakers; auto counts those of each recording. 1 removes noise.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", rich_help_panel=MODEL, help="Name of a bundled model, or a .safetensors file."
    ),
]
Residual = Annotated[
    bool,
    typer.Option(
        "--residual",
        rich_help_panel=OUTPUT,
        help="Also write the residual: the input minus all separated speakers, or minus speech.",
    ),
]
Hum = Annotated[
    Literal["remove", "share", "keep"],
    typer.Option(
        "--hum",
        rich_help_panel=OUTPUT,
        help="DC, rumble below 65 Hz and mains hum: remove them from the speakers (--residual holds them), share them "
        "equally among the speakers, or leave them to the model.",
    ),
]
Quality = Annotated[
    Literal["fast", "standard", "best"],
    typer.Option(
        "--quality",
        rich_help_panel=MODEL,
        help="fast: a smaller model where there is one (separate, two speakers). best: run the standard model, or "
        "--model, twice at shifted starts and average, for twice the time.",
    ),
]


@dataclass(frozen=True)
class Shared:
    """The options that every processing command has."""

    channels: Annotated[
        str,
        typer.Option(
            "--channels",
            metavar="each|mix|N",
            parser=values.parse_channels,
            rich_help_panel=INPUT,
            help="Process each channel, their mean (one output channel), or only channel N (from 1 on).",
        ),
    ] = "each"
    audio_stream: Annotated[
        int | None,
        typer.Option(
            "--audio-stream",
            metavar="N",
            min=1,
            show_default=False,
            rich_help_panel=INPUT,
            help="Audio stream of a video or the like, from 1 on. [default: the one that the file marks]",
        ),
    ] = None
    start: Annotated[
        float | None,
        typer.Option(
            "--start",
            metavar="TIME",
            parser=values.parse_start,
            rich_help_panel=INPUT,
            help="Process from this time on: seconds, mm:ss or hh:mm:ss. [default: the beginning]",
        ),
    ] = None
    end: Annotated[
        float | None,
        typer.Option(
            "--end",
            metavar="TIME",
            parser=values.parse_end,
            rich_help_panel=INPUT,
            help="Process up to this time. [default: the end]",
        ),
    ] = None
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            metavar="LIST",
            rich_help_panel=INPUT,
            help="File with one input path a line, or - for standard input.",
        ),
    ] = None
    null: Annotated[
        bool,
        typer.Option(
            "--null",
            "-0",
            rich_help_panel=INPUT,
            help="Paths in lists are separated by NUL bytes, as find -print0 prints them.",
        ),
    ] = False
    strict: Annotated[
        bool,
        typer.Option("--strict", rich_help_panel=INPUT, help="Fail on damaged recordings instead of warning."),
    ] = False
    nonfinite: Annotated[
        Literal["error", "zero"],
        typer.Option(
            "--nonfinite",
            rich_help_panel=INPUT,
            help="Samples that are NaN or infinite: fail, or set them to zero and count them.",
        ),
    ] = "error"
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            rich_help_panel=OUTPUT,
            help="Folder, file, or - for standard output. [default: current folder]",
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            metavar="NAME",
            rich_help_panel=OUTPUT,
            help="File name of the outputs, with the fields {stem}, {speaker}, {rate} and {ext}.",
        ),
    ] = None
    container: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            rich_help_panel=OUTPUT,
            help="wav, flac, w64, aiff, caf, m4a, mp3, opus, ogg; or mp4, mov, mkv, webm, which keep the video. "
            "[default: the output's suffix, or wav]",
        ),
    ] = None
    subtype: Annotated[
        str | None,
        typer.Option(
            "--subtype",
            metavar="16|24|32|float",
            parser=values.parse_subtype,
            rich_help_panel=OUTPUT,
            help="Sample format. [default: the input's; 16 for lossy input]",
        ),
    ] = None
    bitrate: Annotated[
        str | None,
        typer.Option(
            "--bitrate",
            metavar="BITS",
            rich_help_panel=OUTPUT,
            help="Bits per second of lossy outputs, such as 192k. [default: one that cannot be heard]",
        ),
    ] = None
    clip: Annotated[
        Literal["warn", "rescale", "error"],
        typer.Option(
            "--clip",
            rich_help_panel=OUTPUT,
            help="Samples above full scale: clip and count them, lower the level of all outputs, or fail.",
        ),
    ] = "warn"
    fail: Annotated[
        bool, typer.Option("--fail", rich_help_panel=OUTPUT, help="Fail if an output exists (default).")
    ] = False
    overwrite: Annotated[
        bool, typer.Option("--overwrite", "-y", rich_help_panel=OUTPUT, help="Replace outputs that already exist.")
    ] = False
    skip: Annotated[
        bool, typer.Option("--skip", rich_help_panel=OUTPUT, help="Skip inputs whose outputs already exist.")
    ] = False
    no_provenance: Annotated[
        bool,
        typer.Option(
            "--no-provenance",
            rich_help_panel=OUTPUT,
            help="Do not tag outputs with the version, models and options that made them.",
        ),
    ] = False
    keep_time: Annotated[
        bool,
        typer.Option(
            "--keep-time", rich_help_panel=OUTPUT, help="Give outputs the modification time of their recording."
        ),
    ] = False
    spectrogram: Annotated[
        str | None,
        typer.Option(
            "--spectrogram",
            metavar="PNG",
            rich_help_panel=OUTPUT,
            help="Draw the spectrograms of the input and the outputs into this file (one recording).",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Print what would be written, and write nothing."),
    ] = False
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="auto|cpu|cuda|cuda:N",
            parser=values.parse_device,
            rich_help_panel=MODEL,
            help="Where to run the model. cuda:1 is the second GPU.",
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bf16"],
        typer.Option("--precision", rich_help_panel=MODEL, help="auto uses bf16 if it is faster on this device."),
    ] = "auto"
    batch: Annotated[
        int,
        typer.Option(
            "--batch", metavar="N", min=1, max=256, rich_help_panel=MODEL, help="Number of windows in a batch."
        ),
    ] = 1
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            max=256,
            rich_help_panel=MODEL,
            help="Number of batches processed in parallel on the CPU. [default: number of cores, at most 4]",
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="i/N", rich_help_panel=BATCH, help="Process only every N-th input, from the i-th on."
        ),
    ] = None
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            rich_help_panel=BATCH,
            help="Number of worker processes, each with --threads threads or its share of the default. [default: 1]",
        ),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            rich_help_panel=BATCH,
            help="Run on a Ray cluster, one worker per GPU (or CPU), at most --jobs. ADDRESS: local starts a cluster, "
            "auto or HOST:PORT connects to a running one. All nodes need the same paths, and audiosr-cli[ray].",
        ),
    ] = None
    manifest: Annotated[
        str | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            rich_help_panel=BATCH,
            help="Append a JSON line about every recording to this file.",
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", rich_help_panel=BATCH, help="Skip recordings that --manifest shows as complete."),
    ] = False
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            rich_help_panel=DEFAULTS,
            help="Use the options of [preset.NAME] in audiosr.toml; see audiosr config show.",
        ),
    ] = None
    no_config: Annotated[
        bool, typer.Option("--no-config", rich_help_panel=DEFAULTS, help="Ignore audiosr.toml files.")
    ] = False
    as_json: Annotated[
        bool,
        typer.Option("--json", rich_help_panel=MESSAGES, help="Print events to standard output, one JSON object each."),
    ] = False
    progress: Annotated[
        Literal["auto", "plain", "json", "none"],
        typer.Option(
            "--progress",
            rich_help_panel=MESSAGES,
            help="Progress on standard error: a bar on a terminal, lines, JSON events, or nothing.",
        ),
    ] = "auto"
    print0: Annotated[
        bool,
        typer.Option(
            "--print0",
            rich_help_panel=MESSAGES,
            help="End the name of each output on standard output with a NUL byte, for xargs -0; also with --quiet.",
        ),
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=MESSAGES, help="Print errors only.")] = False
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", rich_help_panel=MESSAGES, help="Print how long each recording took."),
    ] = False


processing = expand("shared", Shared)  # the decorator of every processing command
