"""Names of the outputs of a recording, and their metadata: its own, as far as they fit, and provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from audiosr_cli import __version__
from audiosr_cli.audio.formats import OutputFormat
from audiosr_cli.audio.metadata.fitting import fit
from audiosr_cli.audio.metadata.provenance import TOOL, provenance_text
from audiosr_cli.audio.metadata.types import Metadata
from audiosr_cli.audio.read import AudioReader
from audiosr_cli.models.runner import ModelCall
from audiosr_cli.streaming.options import Options

_SHA_DIGITS = 12
_NEUTRAL = {"device", "batch", "threads", "strict", "provenance", "bf16"}  # options that leave the samples as they are


def output_names(tracks: int, speech: bool = False, residual: bool = False) -> tuple[str, ...]:
    """Name outputs: one of ``speech``, or numbered ``tracks``; then the residual, if there is one."""
    names = ["speech"] if speech else [f"speaker{i + 1}" for i in range(tracks)]
    return (*names, *(["residual"] if residual else []))


def describe(
    reader: AudioReader,
    output_format: OutputFormat,
    options: Options,
    outputs: Sequence[str],
    command: str,
    models: Sequence[ModelCall],
    settings: Mapping[str, Any],
) -> tuple[list[Metadata], list[str]]:
    """Collect the metadata of every output of an open recording.

    Args:
        reader: The recording.
        output_format: The format of its outputs.
        options: How it is processed.
        outputs: Names of the outputs.
        command: Name of the command.
        models: That process the recording.
        settings: The command's own settings; those that are None are left out.

    Returns:
        The metadata of each output, and notes on what the format cannot hold.
    """
    channels, rate = output_format.channels, output_format.sample_rate
    source = reader.metadata()
    start_s, end_s = options.start_s or 0.0, options.end_s
    cut_s = None if end_s is None else end_s - start_s
    metadata = source.for_output(rate, start_s, cut_s, same_channels=options.channels == "each")
    if reader.frames is not None:
        end_s = min(end_s or math.inf, reader.frames / reader.sample_rate)
    length_s = None if end_s is None else max(0.0, end_s - start_s)
    lost: list[str] = []
    described = []
    for output in outputs:
        provenance = ""
        if options.provenance:
            details = _details(options, models, settings) | ({"output": output} if len(outputs) > 1 else {})
            provenance = provenance_text(__version__, command, details)
        tags = {"encoder": f"{TOOL} {__version__}", **metadata.tags} if options.provenance else metadata.tags
        metadata = replace(metadata, tags=tags, provenance=provenance)
        fitted, lost = fit(metadata, output_format.container, channels, length_s)
        described.append(fitted)
    if not lost:
        return described, []
    return described, [f"{reader.name}: {_listed(lost)} cannot be kept in {output_format.container}"]


def _details(options: Options, models: Sequence[ModelCall], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines the samples: models by name and SHA-256, and options that are not the defaults."""
    defaults = Options()
    chosen = {name: value for name, value in settings.items() if value is not None}
    for name in (field.name for field in fields(Options) if field.name not in _NEUTRAL):
        if getattr(options, name) != getattr(defaults, name):
            chosen[name] = getattr(options, name)
    if options.bf16 and models:
        chosen["precision"] = "bf16"
    names = [f"{call.spec.name} {call.model.sha256[:_SHA_DIGITS]}".strip() for call in models]
    return {"models": names, "options": chosen}


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
