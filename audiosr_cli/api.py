"""The Python interface: what each command does, for arrays and paths, through the same stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.audio.write import choose_format, container_of
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.models import Model
from audiosr_cli.process import Options, Progress, Report, Samples, process_array, process_file
from audiosr_cli.weights import default_model, load_model

Source = str | os.PathLike[str]


@dataclass(frozen=True)
class Pipeline:
    """Models in a row, ready to run: ``rate`` (Hz) is the output's, None for the input's own."""

    models: tuple[Model, ...]
    rate: int | None
    options: Options

    @property
    def sources(self) -> int:
        """Outputs per recording."""
        return int(np.prod([model.spec.sources for model in self.models]))

    def array(self, audio: NDArray[np.floating], sample_rate: int) -> Samples:
        """A signal (T,) or (C, T) as (S, C, T') float32."""
        return process_array(audio, sample_rate, self.models, self.rate or sample_rate, self.options)

    def file(
        self,
        reader: AudioReader,
        targets: Sequence[str | Path],
        container: str = "wav",
        subtype: str | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """An open recording into ``targets``, one a source; ``-`` is standard output."""
        rate = self.rate or reader.sample_rate
        form = choose_format(container, subtype, reader.subtype, rate, reader.channels)
        report = process_file(targets, reader, self.models, form, self.options, progress)
        if self.rate is not None and self.rate <= reader.sample_rate:
            report.warnings.append(f"{reader.name}: is at {reader.sample_rate} Hz already; its rate was not raised")
        return report


def pick_device(name: str) -> str:
    """``auto`` is CUDA where there is one. Raises UsageError on ``cuda`` without one, never falls back."""
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _load(task: str, model: str | None, options: Options) -> Model:
    network = load_model(model or default_model(task), options.device)
    if network.spec.task != task:
        raise ModelError(f"{network.spec.name} is a model to {network.spec.task}, not to {task}")
    return network


def _check_rate(rate: int) -> None:
    if not 1_000 <= rate <= 768_000:
        raise UsageError(f"--rate {rate}: 1000 to 768000 Hz is possible")


def separation(speakers: int, model: str | None = None, options: Options | None = None) -> Pipeline:
    """The pipeline of ``separate``. Raises UsageError where no model parts that many speakers."""
    options = options or Options()
    network = _load("separate", model, options)
    if network.spec.sources != speakers:
        name = network.spec.name
        raise UsageError(f"--speakers {speakers}: {name} separates {network.spec.sources}; no other model is bundled")
    return Pipeline((network,), None, options)


def upsampling(rate: int = 48000, model: str | None = None, options: Options | None = None) -> Pipeline:
    """The pipeline of ``upsample``: up to ``rate`` Hz."""
    _check_rate(rate)
    options = options or Options()
    return Pipeline((_load("upsample", model, options),), rate, options)


def cascade(
    speakers: int,
    rate: int | None = None,
    model: str | None = None,
    upsampler: str | None = None,
    options: Options | None = None,
) -> Pipeline:
    """The pipeline of ``separate-sr``: separate, then restore the bandwidth of every source."""
    if rate is not None:
        _check_rate(rate)
    first = separation(speakers, model, options)
    second = upsampling(model=upsampler, options=options)
    return replace(first, models=first.models + second.models, rate=rate)


def default_targets(source: Source, sources: int, rate: int) -> list[Path]:
    """``mix_speaker1.wav`` … for several outputs, ``in_48000.wav`` for one, in the current folder."""
    stem = "stdin" if str(source) == "-" else Path(source).stem
    return [Path(f"{stem}_speaker{i + 1}.wav" if sources > 1 else f"{stem}_{rate}.wav") for i in range(sources)]


def _run(
    pipeline: Pipeline, source: Source | NDArray[np.floating], sample_rate: int | None, outputs: Sequence[Source] | None
) -> Samples | Report:
    if isinstance(source, np.ndarray):
        if sample_rate is None:
            raise UsageError("an array needs its sample_rate")
        return pipeline.array(source, sample_rate)
    with AudioReader(source) as reader:
        targets = [Path(path) for path in outputs or []]
        targets = targets or default_targets(source, pipeline.sources, pipeline.rate or reader.sample_rate)
        if len(targets) != pipeline.sources:
            raise UsageError(f"{len(targets)} output path(s) for {pipeline.sources} outputs")
        return pipeline.file(reader, targets, container_of(targets[0]) or "wav")


@overload
def separate(source: NDArray[np.floating], sample_rate: int, *, speakers: int = 2, **choices: Any) -> Samples: ...
@overload
def separate(
    source: Source, *, speakers: int = 2, outputs: Sequence[Source] | None = None, **choices: Any
) -> Report: ...
def separate(
    source: Source | NDArray[np.floating],
    sample_rate: int | None = None,
    *,
    speakers: int = 2,
    outputs: Sequence[Source] | None = None,
    model: str | None = None,
    device: str = "auto",
) -> Samples | Report:
    """Part overlapping speakers, at the input's rate.

    An array (T,) or (C, T) at ``sample_rate`` Hz returns (S, C, T) float32. A path is streamed into
    ``outputs``, one file a speaker (default ``mix_speaker1.wav`` … in the current folder), and returns a
    Report. Levels are kept; nothing is clipped in arrays. Raises AudioSRError.
    """
    return _run(separation(speakers, model, Options(pick_device(device))), source, sample_rate, outputs)


@overload
def upsample(source: NDArray[np.floating], sample_rate: int, *, rate: int = 48000, **choices: Any) -> Samples: ...
@overload
def upsample(source: Source, *, rate: int = 48000, output: Source | None = None, **choices: Any) -> Report: ...
def upsample(
    source: Source | NDArray[np.floating],
    sample_rate: int | None = None,
    *,
    rate: int = 48000,
    output: Source | None = None,
    model: str | None = None,
    device: str = "auto",
) -> Samples | Report:
    """Restore the bandwidth of a recording, up to ``rate`` Hz.

    An array (T,) or (C, T) at ``sample_rate`` Hz returns (C, T') float32, T' = round(T * rate /
    sample_rate). A path is streamed into ``output`` (default ``in_48000.wav`` in the current folder) and
    returns a Report. Raises AudioSRError.
    """
    pipeline = upsampling(rate, model, Options(pick_device(device)))
    made = _run(pipeline, source, sample_rate, None if output is None else [output])
    return made[0] if isinstance(made, np.ndarray) else made


@overload
def separate_sr(source: NDArray[np.floating], sample_rate: int, *, speakers: int = 2, **choices: Any) -> Samples: ...
@overload
def separate_sr(
    source: Source, *, speakers: int = 2, outputs: Sequence[Source] | None = None, **choices: Any
) -> Report: ...
def separate_sr(
    source: Source | NDArray[np.floating],
    sample_rate: int | None = None,
    *,
    speakers: int = 2,
    rate: int | None = None,
    outputs: Sequence[Source] | None = None,
    model: str | None = None,
    upsampler: str | None = None,
    device: str = "auto",
) -> Samples | Report:
    """Separate at the separator's low rate, then restore each source's bandwidth; as ``separate`` otherwise.

    ``rate`` Hz is the output's, the input's if None. Today a plain cascade: the upsampler does not see the
    mixture.
    """
    pipeline = cascade(speakers, rate, model, upsampler, Options(pick_device(device)))
    return _run(pipeline, source, sample_rate, outputs)
