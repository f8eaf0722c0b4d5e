"""Separation and restoration of a recording in one call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from audiosr_cli import arguments
from audiosr_cli.api.translate import errors_of
from audiosr_cli.arguments import Source
from audiosr_cli.audio.write import ClipPolicy
from audiosr_cli.conversation.turns import Turn
from audiosr_cli.errors import AudioSRWarning
from audiosr_cli.pipelines import PipelineConfig, SeparateOptions, SeparateSROptions, UpsampleOptions
from audiosr_cli.runtime.device import Precision
from audiosr_cli.streaming.labelling import Labels
from audiosr_cli.streaming.options import Channels, HumPolicy, KindChoice, Quality, Samples, Speakers
from audiosr_cli.streaming.report import Report

ProgressCallback = Callable[[float, float | None], object]  # seconds processed, seconds in all if known


@dataclass(frozen=True, eq=False)
class Result:
    """Processed audio with its report.

    Attributes:
        audio: Samples, float32, full scale 1.0, time last. ``separate`` and ``separate_sr`` return (S, C, T) with S
            speakers (and the residual, if requested); ``upsample`` returns (C, T).
        sample_rate: Sample rate of ``audio`` in Hz.
        report: Levels, lengths, confidence in the speaker order, warnings and notes; see ``Report``.
    """

    audio: Samples
    sample_rate: int
    report: Report

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Who speaks when, in the order of starts; those of different speakers may overlap. None in ``upsample``."""
        return tuple(self.report.turns)


def separate(
    source: Source,
    sample_rate: int | None = None,
    *,
    speakers: Speakers = 2,
    model: str | os.PathLike[str] | None = None,
    quality: Quality = "standard",
    residual: bool = False,
    hum: HumPolicy = "remove",
    gate: bool = False,
    channels: Channels = "each",
    audio_stream: int | None = None,
    clip: ClipPolicy = "warn",
    strict: bool = False,
    nonfinite: Literal["error", "zero"] = "error",
    start_s: float | None = None,
    end_s: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch: int = 1,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Result:
    """Separate overlapping speakers, at the sample rate of the input.

    The result is held in memory. For recordings of many hours use the command, which streams to files.

    Args:
        source: An array or tensor of floating point samples, (T,) or (C, T) with full scale 1.0; or a recording in any
            format that the command reads: a path ("-" is standard input), a binary file object (read from where it
            stands to its end, and left open), or the bytes of a file.
        sample_rate: Sample rate of an array in Hz. Files state their own.
        speakers: Number of speakers. 1 removes noise: the only output is the speech of everybody. "auto" counts those
            of each recording, 1 to 3; ``report.speakers`` of the result is what was counted, and
            ``report.speakers_confidence`` how sure that is.
        model: Name of a bundled model or path of a checkpoint; None picks a bundled model for ``speakers``.
        quality: "standard", "fast" (a smaller model for two speakers) or "best" (the standard model, or ``model``,
            runs twice at starts half a hop of its frames apart, and the estimates are averaged).
        residual: Return one more output, the input minus all separated speakers.
        hum: What happens to DC, rumble below 65 Hz and mains hum: "remove" keeps them from the speakers, "share" adds
            equal shares to them, "keep" leaves them to the model.
        gate: Turn each track down by 40 dB where its speaker does not speak (see ``Result.turns``).
        channels: "each" processes every channel by itself, "mix" their mean; a number, counted from 1, only that one.
        audio_stream: Which stream of sound of a video or the like is read, counted from 1; None for the default one.
        clip: What to do if samples of the output exceed full scale: "warn" keeps them and warns, "rescale" turns all
            outputs down by the same gain, "error" raises SampleError.
        strict: Raise InputError for damage in a recording, in place of a warning.
        nonfinite: What to do about samples that are NaN or infinite: "error" raises InputError, "zero" replaces them
            and warns.
        start_s: Where the part to process begins, in seconds; None is the beginning.
        end_s: Where it ends, in seconds; None is the end. The part is processed as a recording of its own.
        device: "auto", "cpu", "cuda", or "cuda:1" for the second GPU; "auto" is CUDA if there is a device.
        precision: "auto", "float32" or "bf16"; "auto" is bf16 where that is faster.
        batch: Number of windows that pass through the model at once, 1 to 256.
        threads: Number of batches processed in parallel on the CPU, 1 to 256; None is the number of cores, at most 4.
            It does not change the output.
        progress: Called with the seconds of input processed so far, and those in all, or None if that is unknown.

    Returns:
        A result with audio (S, C, T) float32: the speakers, then the residual if requested.

    Raises:
        UsageError: If an argument is invalid, no model separates that many speakers, or both ``model`` and "fast"
            choose one.
        InputError: If the recording cannot be read, is damaged (with ``strict``), not finite, or over at ``start_s``.
        SampleError: If the output is not finite, or exceeds full scale with ``clip="error"``.
        ModelError: If the model cannot be loaded, or is for another task.
        AudioSRError: If memory runs out or the operating system refuses something; base of the others.

    Warns:
        AudioSRWarning: If the recording is damaged or empty, the output exceeds full scale, the speaker order or the
            number of speakers is uncertain, a track is almost silent, or a GPU has too little memory.

    Example:
        >>> import audiosr_cli
        >>> result = audiosr_cli.separate("examples/two_speakers.wav", speakers=2)
        >>> result.audio.shape, result.sample_rate
        ((2, 1, 80371), 16000)
        >>> import soundfile
        >>> mixture, sample_rate = soundfile.read("examples/two_speakers.wav", frames=16000)  # stereo: mixture.T
        >>> audiosr_cli.separate(mixture, sample_rate, residual=True).audio.shape
        (3, 1, 16000)
    """
    options = arguments.options(
        device, precision, batch, threads, channels, clip, strict, nonfinite, audio_stream, start_s, end_s
    )
    command = SeparateOptions(
        arguments.speakers(speakers),
        arguments.model_name("model", model),
        arguments.flag("residual", residual),
        arguments.hum_policy(hum),
        arguments.quality(quality),
        Labels(gate=arguments.flag("gate", gate)),
    )
    return _run(source, sample_rate, PipelineConfig(command, options), progress)


def upsample(
    source: Source,
    sample_rate: int | None = None,
    *,
    rate: int = 48000,
    model: str | os.PathLike[str] | None = None,
    kind: KindChoice = "auto",
    cutoff_hz: float | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int | None = None,
    channels: Channels = "each",
    audio_stream: int | None = None,
    clip: ClipPolicy = "warn",
    strict: bool = False,
    nonfinite: Literal["error", "zero"] = "error",
    start_s: float | None = None,
    end_s: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch: int = 1,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Result:
    """Restore the bandwidth of a narrow-band recording.

    Args:
        source: As in ``separate``.
        sample_rate: As in ``separate``.
        rate: Sample rate of the output in Hz, not below the input's unless ``model`` is "none".
        model: Name of a bundled model or path of a checkpoint; "none" only resamples, None uses that for ``kind``.
        kind: What the recording holds: "speech", "music" or "effects", all other sounds. "auto" detects it, unless
            ``model`` is given; ``report.kind`` of the result is what was detected, and ``report.kind_confidence`` how
            sure that is.
        cutoff_hz: Frequency above which content is restored; None detects it.
        steps: Diffusion steps of audiosr_small; 0 uses the deterministic estimate, None is 4.
        guidance: Classifier-free guidance scale of audiosr_small; None is 1.
        seed: Seed of the noise of audiosr_small; None is 0.
        channels: As in ``separate``.
        audio_stream: As in ``separate``.
        clip: As in ``separate``.
        strict: As in ``separate``.
        nonfinite: As in ``separate``.
        start_s: As in ``separate``.
        end_s: As in ``separate``.
        device: As in ``separate``.
        precision: As in ``separate``.
        batch: As in ``separate``.
        threads: As in ``separate``.
        progress: As in ``separate``.

    Returns:
        A result with audio (C, T') float32, T' = round(T * rate / sample_rate). ``result.report.cutoff_hz`` is the
        frequency above which content was restored.

    Raises:
        UsageError: If an argument is invalid, ``rate`` is below the sample rate of the input, or both ``model`` and
            ``kind`` choose a model.
        InputError: As in ``separate``.
        SampleError: As in ``separate``.
        ModelError: As in ``separate``.
        AudioSRError: As in ``separate``.

    Example:
        >>> import audiosr_cli
        >>> result = audiosr_cli.upsample("examples/narrowband.wav", rate=48000)
        >>> result.audio.shape, result.sample_rate
        ((1, 234714), 48000)
    """
    options = arguments.options(
        device, precision, batch, threads, channels, clip, strict, nonfinite, audio_stream, start_s, end_s
    )
    command = UpsampleOptions(
        arguments.rate("rate", rate),
        arguments.model_name("model", model),
        arguments.number("cutoff_hz", cutoff_hz),
        arguments.sampling(steps, guidance, seed),
        kind=arguments.kind(kind),
    )
    result = _run(source, sample_rate, PipelineConfig(command, options), progress)
    return replace(result, audio=result.audio[0])


def separate_sr(
    source: Source,
    sample_rate: int | None = None,
    *,
    speakers: Speakers = 2,
    rate: int | None = None,
    model: str | os.PathLike[str] | None = None,
    quality: Quality = "standard",
    restorer: str | os.PathLike[str] | None = None,
    upsampler: str | os.PathLike[str] | None = None,
    hum: HumPolicy = "remove",
    gate: bool = False,
    channels: Channels = "each",
    audio_stream: int | None = None,
    clip: ClipPolicy = "warn",
    strict: bool = False,
    nonfinite: Literal["error", "zero"] = "error",
    start_s: float | None = None,
    end_s: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch: int = 1,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Result:
    """Separate speakers at a low sample rate, then restore the bandwidth of each.

    Args:
        source: As in ``separate``.
        sample_rate: As in ``separate``.
        speakers: As in ``separate``.
        rate: Sample rate of the output in Hz; None keeps the input's.
        model: Model that separates; None picks the bundled one with the lowest sample rate.
        quality: As in ``separate``, but "fast" is the same as "standard": the lowest sample rate is the fast one.
        restorer: Model that restores each speaker's high frequencies from the mixture; "none" leaves that to the
            upsampler, None picks a bundled model if one fits.
        upsampler: Model that restores frequencies that the mixture lacks; None uses the default one if ``rate`` is
            given or there is no restorer.
        hum: As in ``separate``.
        gate: As in ``separate``.
        channels: As in ``separate``.
        audio_stream: As in ``separate``.
        clip: As in ``separate``.
        strict: As in ``separate``.
        nonfinite: As in ``separate``.
        start_s: As in ``separate``.
        end_s: As in ``separate``.
        device: As in ``separate``.
        precision: As in ``separate``.
        batch: As in ``separate``.
        threads: As in ``separate``.
        progress: As in ``separate``.

    Returns:
        A result with audio (S, C, T') float32, T' = round(T * rate / sample_rate).

    Raises:
        UsageError: If an argument is invalid, or the models do not fit each other.
        InputError: As in ``separate``.
        SampleError: As in ``separate``.
        ModelError: As in ``separate``.
        AudioSRError: As in ``separate``.

    Example:
        >>> import audiosr_cli
        >>> result = audiosr_cli.separate_sr("examples/two_speakers.wav", speakers=2)
        >>> result.audio.shape, result.sample_rate
        ((2, 1, 80371), 16000)
    """
    options = arguments.options(
        device, precision, batch, threads, channels, clip, strict, nonfinite, audio_stream, start_s, end_s
    )
    command = SeparateSROptions(
        arguments.speakers(speakers),
        None if rate is None else arguments.rate("rate", rate),
        arguments.model_name("model", model),
        arguments.model_name("restorer", restorer),
        arguments.model_name("upsampler", upsampler),
        arguments.hum_policy(hum),
        arguments.quality(quality),
        Labels(gate=arguments.flag("gate", gate)),
    )
    return _run(source, sample_rate, PipelineConfig(command, options), progress)


def _run(source: Source, sample_rate: int | None, config: PipelineConfig, progress: object) -> Result:
    """Process ``source``; warnings point at the caller's caller, which is the user's code."""
    with errors_of("audiosr_cli"), arguments.open_source(source, sample_rate, config.options) as reader:
        on_frames = arguments.progress(progress, reader, config.options)
        audio, report = config.build().in_memory(reader, on_frames)
    for line in report.warnings:
        warnings.warn(line, AudioSRWarning, stacklevel=3)
    return Result(audio, report.rate_out, report)
