"""The arguments of the Python interface: checks, each of which raises UsageError, and opening the source."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any, BinaryIO, Literal, SupportsIndex, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from audiosr_cli.audio.arrays import ArrayReader
from audiosr_cli.audio.read import AudioReader, EncodedBytes
from audiosr_cli.audio.wav import RATES
from audiosr_cli.audio.write import ClipPolicy
from audiosr_cli.contract import Kind
from audiosr_cli.errors import UsageError
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.runtime.device import Precision, pick_bf16, pick_device, pick_threads
from audiosr_cli.streaming.options import Channels, HumPolicy, KindChoice, Options, Quality, Speakers

Source = NDArray[np.floating] | torch.Tensor | str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview

_MAX_PARALLEL = 256  # windows at once, and threads, as in the command


@contextmanager
def open_source(
    source: Source, sample_rate: int | None, options: Options | None = None
) -> Iterator[AudioReader | ArrayReader]:
    """Open an array or a recording. Raises UsageError or InputError."""
    if isinstance(source, np.ndarray | torch.Tensor):
        if sample_rate is None:
            raise UsageError("sample_rate is missing: an array needs its sample rate in Hz")
        array = source if isinstance(source, np.ndarray) else _array_of(source)
        yield ArrayReader(array, rate("sample_rate", sample_rate))
        return
    if not isinstance(source, str | os.PathLike | EncodedBytes) and not callable(getattr(source, "read", None)):
        hint = "; convert it with numpy.asarray(..., numpy.float32)" if isinstance(source, list | tuple) else ""
        raise UsageError(
            f"source is of type {type(source).__name__}; expected an array, a tensor, a path, bytes or a file "
            f"object{hint}"
        )
    if sample_rate is not None:
        raise UsageError("sample_rate is for arrays; a recording states its own, leave it out")
    with AudioReader(source, None if options is None else options.audio_stream) as reader:
        yield reader


def _array_of(tensor: torch.Tensor) -> NDArray[np.floating]:
    """Return a tensor's samples, bfloat16 and its like as float32. Raises UsageError."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise UsageError("the tensor is sparse, quantized or without data; expected a dense one")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    array: NDArray[np.floating] = tensor.resolve_conj().resolve_neg().numpy()
    return array


def options(
    device: str,
    precision: str,
    batch: int,
    threads: int | None,
    channels: Channels,
    clip: str,
    strict: bool,
    nonfinite: str,
    audio_stream: int | None,
    start_s: float | None,
    end_s: float | None,
) -> Options:
    """Check the options that all functions share. Raises UsageError."""
    if not isinstance(device, str):
        raise UsageError(f"device = {shortened(device)}: expected the name of a device, such as 'cpu' or 'cuda:1'")
    device = pick_device(device)
    if isinstance(channels, str):
        choice("channels", channels, ("each", "mix"))
    else:
        channels = integer("channels", channels, 1)
    return Options(
        device=device,
        batch=integer("batch", batch, 1, _MAX_PARALLEL),
        clip=cast("ClipPolicy", choice("clip", clip, get_args(ClipPolicy))),
        channels=channels,
        strict=flag("strict", strict),
        nonfinite=cast("Literal['error', 'zero']", choice("nonfinite", nonfinite, ("error", "zero"))),
        bf16=pick_bf16(cast("Precision", choice("precision", precision, get_args(Precision))), device),
        threads=pick_threads() if threads is None else integer("threads", threads, 1, _MAX_PARALLEL),
        start_s=seconds("start_s", start_s),
        end_s=seconds("end_s", end_s),
        audio_stream=None if audio_stream is None else integer("audio_stream", audio_stream, 1),
    )


def progress(callback: object, reader: AudioReader | ArrayReader, options: Options) -> Callable[[int], None] | None:
    """Convert the frames that the engine counts to the seconds that ``callback`` is called with. Raises UsageError."""
    if callback is None:
        return None
    if not callable(callback):
        raise UsageError(f"progress = {shortened(callback)}: expected a function of two arguments, or None")
    frames = options.count_frames(reader.frames, reader.sample_rate)
    total_s = None if frames is None else frames / reader.sample_rate
    return lambda done: callback(done / reader.sample_rate, total_s)


def speakers(value: object) -> Speakers:
    """Return ``value`` if it is a number of speakers, or "auto". Raises UsageError."""
    if isinstance(value, str):
        if value != "auto":
            raise UsageError(f"speakers = {shortened(value)}: expected an integer, or 'auto'")
        return "auto"
    return integer("speakers", value, 1)


def hum_policy(value: object) -> HumPolicy:
    """Return ``value`` if it says what happens to hum. Raises UsageError."""
    return cast("HumPolicy", choice("hum", value, get_args(HumPolicy)))


def kind(value: object) -> KindChoice:
    """Return ``value`` if it is a kind of recordings, or "auto". Raises UsageError."""
    return cast("KindChoice", choice("kind", value, ("auto", *get_args(Kind))))


def quality(value: object) -> Quality:
    """Return ``value`` if it is a quality. Raises UsageError."""
    return cast("Quality", choice("quality", value, get_args(Quality)))


def sampling(steps: int | None, guidance: float | None, seed: int | None) -> Sampling | None:
    """Return how a diffusion model samples, None for its defaults. Raises UsageError."""
    chosen: dict[str, Any] = {}
    if steps is not None:
        chosen["steps"] = integer("steps", steps, 0)
    if guidance is not None:
        chosen["guidance"] = number("guidance", guidance)
    if seed is not None:
        chosen["seed"] = integer("seed", seed)
    return Sampling(**chosen) if chosen else None


def integer(name: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """Return ``value`` if it is an integer within bounds. Raises UsageError."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(cast(SupportsIndex, value))
    except TypeError as error:
        raise UsageError(f"{name} = {shortened(value)}: expected an integer, not {type(value).__name__}") from error
    if (low is not None and number < low) or (high is not None and number > high):
        raise UsageError(f"{name} = {number}: must be " + (f"at least {low}" if high is None else f"{low} to {high}"))
    return number


def rate(name: str, value: object) -> int:
    """Return ``value`` if it is a sample rate in Hz. Raises UsageError."""
    return integer(name, value, RATES.start, RATES.stop - 1)


def number(name: str, value: object) -> float | None:
    """Return ``value`` if it is a finite number, or None. Raises UsageError."""
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(f"{name} = {shortened(value)}: expected a finite number")
    return number


def seconds(name: str, value: object) -> float | None:
    """Return ``value`` if it is a time in seconds from 0 on, or None. Raises UsageError."""
    time_s = number(name, value)
    if time_s is not None and time_s < 0:
        raise UsageError(f"{name} = {time_s:g}: must be at least 0")
    return time_s


def flag(name: str, value: object) -> bool:
    """Return ``value`` if it is a bool. Raises UsageError."""
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} = {shortened(value)}: expected True or False")
    return bool(value)


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``. Raises UsageError."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} = {shortened(value)}: expected one of {', '.join(map(repr, choices))}")
    return value


def model_name(name: str, value: object) -> str | None:
    """Return the name or path of a model as text, or None. Raises UsageError."""
    if value is None:
        return None
    text = os.fsdecode(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or "\0" in text or not text:
        raise UsageError(f"{name} = {shortened(value)}: expected the name of a model or the path of a checkpoint")
    return text


def shortened(value: object) -> str:
    """Describe a value in a message, shortened."""
    return reprlib.repr(value)
