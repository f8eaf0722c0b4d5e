"""The Python interface: what each command does, for arrays and paths, through the same stages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.errors import UsageError
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.pipelines import SeparateOptions, SeparateSROptions, UpsampleOptions, default_options
from audiosr_cli.streaming.options import Samples
from audiosr_cli.streaming.pipeline import Pipeline, Source


def _array(pipeline: Pipeline, source: Source | NDArray[np.floating], sample_rate: int | None) -> Samples:
    if isinstance(source, np.ndarray):
        if sample_rate is None:
            raise UsageError("an array needs its sample_rate")
        return pipeline.array(source, sample_rate)
    with AudioReader(source) as reader:
        pieces = [np.zeros((reader.channels, 0), np.float32), *reader.blocks()]
        return pipeline.array(np.concatenate(pieces, axis=1), reader.sample_rate)


def separate(
    source: Source | NDArray[np.floating],
    sample_rate: int | None = None,
    *,
    speakers: int = 2,
    model: str | None = None,
    device: str = "auto",
) -> Samples:
    """Part overlapping speakers: (S, C, T) float32 at the input's rate.

    ``source`` is an array (T,) or (C, T) at ``sample_rate`` Hz, or a path. Levels are kept, nothing is
    clipped. The result is in memory; ``SeparateOptions(2).pipeline().write(path, targets)`` streams files. Raises
    AudioSRError.
    """
    return _array(SeparateOptions(speakers, model).pipeline(default_options(device)), source, sample_rate)


def upsample(
    source: Source | NDArray[np.floating],
    sample_rate: int | None = None,
    *,
    rate: int = 48000,
    model: str | None = None,
    cutoff_hz: float | None = None,
    sampling: Sampling | None = None,
    device: str = "auto",
) -> Samples:
    """Restore the bandwidth of a recording: (C, T') float32 at ``rate`` Hz, T' = round(T * rate / sample_rate).

    ``source`` as in ``separate``; ``UpsampleOptions().pipeline().write(path, targets)`` streams files.
    Raises AudioSRError.
    """
    pipeline = UpsampleOptions(rate, model, cutoff_hz, sampling).pipeline(default_options(device))
    made: Samples = _array(pipeline, source, sample_rate)[0]
    return made


def separate_sr(
    source: Source | NDArray[np.floating],
    sample_rate: int | None = None,
    *,
    speakers: int = 2,
    rate: int | None = None,
    model: str | None = None,
    restorer: str | None = None,
    upsampler: str | None = None,
    device: str = "auto",
) -> Samples:
    """Separate at a low rate, then restore each source's bandwidth: (S, C, T') at ``rate`` Hz (None: the input's).

    ``source`` as in ``separate``. Raises AudioSRError.
    """
    command = SeparateSROptions(speakers, rate, model, restorer, upsampler)
    return _array(command.pipeline(default_options(device)), source, sample_rate)
