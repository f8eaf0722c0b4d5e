"""Spectrograms of recordings as one picture, input above output. Needs matplotlib (extra ``picture``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.errors import OutputError, UsageError
from audiosr_cli.files.atomic import atomic_path

_COLUMNS = 1000  # of a picture, however long the recording is
_FRAME_S = 0.043  # bins of 23 Hz
_RANGE_DB = 100.0  # from the loudest bin of all recordings down to black


@dataclass(frozen=True)
class Panel:
    """A recording in a picture, or the part of it between two times in seconds."""

    title: str
    path: Path
    start_s: float | None = None
    end_s: float | None = None


def check(path: Path, option: str = "--spectrogram") -> None:
    """Raise UsageError if no picture can be written to ``path``, the value of ``option``."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{option} {path}: expected a name that ends in .png")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{option} needs matplotlib; install it with: pip install 'audiosr-cli[picture]'") from error


def spectrogram(
    path: Path, columns: int = _COLUMNS, start_s: float | None = None, end_s: float | None = None
) -> tuple[NDArray[np.float32], int, float]:
    """Compute the spectrogram of a recording in constant memory, as the mean of its channels.

    Args:
        path: The recording.
        columns: Most columns of the result.
        start_s: Where the part begins that is shown, in seconds; None for the beginning.
        end_s: Where it ends, in seconds; None for the end.

    Returns:
        Levels (F, columns) in dB of full scale per Hz, the sample rate in Hz, and the duration in seconds.

    Raises:
        InputError: If the recording cannot be read.
    """
    with AudioReader(path) as reader:
        reader.trim(start_s, end_s)
        frames = sum(block.shape[1] for block in reader.blocks())
    with AudioReader(path) as reader:
        reader.trim(start_s, end_s)
        rate = reader.sample_rate
        size = 2 * max(8, round(_FRAME_S * rate / 2))
        steps = max(1, (frames - size) // (size // 2) + 1)
        columns = min(columns, steps)
        window = np.hanning(size).astype(np.float32)
        power, count = np.zeros((size // 2 + 1, columns)), np.zeros(columns)
        pending, step = np.zeros((reader.channels, 0), np.float32), 0
        for block in reader.blocks():
            pending = np.concatenate([pending, np.nan_to_num(block)], axis=1)
            while pending.shape[1] >= size:
                spectra = np.fft.rfft(pending[:, :size] * window)
                column = min(columns - 1, step * columns // steps)
                power[:, column] += (spectra.real**2 + spectra.imag**2).mean(0)
                count[column] += 1
                pending, step = pending[:, size // 2 :], step + 1
    mean = power / np.maximum(count, 1) / (np.square(window).sum() * rate)
    return (10 * np.log10(mean + 1e-20)).astype(np.float32), rate, frames / rate


def draw(recordings: Sequence[Panel], target: Path) -> None:
    """Draw recordings as panels of one PNG, with the same axes and colours.

    Args:
        recordings: From top to bottom.
        target: The PNG file, written atomically.

    Raises:
        InputError: If a recording cannot be read.
        OutputError: If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(one.title, *spectrogram(one.path, _COLUMNS, one.start_s, one.end_s)) for one in recordings]
    loudest = max(float(levels.max()) for _, levels, _, _ in panels)
    highest = max(rate for _, _, rate, _ in panels) / 2000
    figure = Figure(figsize=(11, 0.6 + 2.6 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, levels, rate, seconds) in zip(axes, panels, strict=True):
        image = axis.imshow(
            levels,
            origin="lower",
            aspect="auto",
            extent=(0, max(seconds, 1e-3), 0, rate / 2000),
            vmin=loudest - _RANGE_DB,
            vmax=loudest,
            cmap="magma",
            interpolation="nearest",
        )
        axis.set_ylim(0, highest)
        axis.set_facecolor("black")
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("kHz")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB of full scale per Hz")
    try:
        with atomic_path(target) as part:
            figure.savefig(part, dpi=110, format="png")
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from error
