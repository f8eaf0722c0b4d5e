"""The options of each processing command, and the pipeline of models that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol, get_args

from audiosr_cli.checkpoints import catalogue, choice
from audiosr_cli.checkpoints.catalogue import default_model
from audiosr_cli.checkpoints.loading import load_classifier, load_for, load_restorer, load_speaker_encoder
from audiosr_cli.contract import Kind
from audiosr_cli.errors import UsageError
from audiosr_cli.models.audiosr import AudioSR
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.runtime.device import pick_bf16, pick_device, pick_threads
from audiosr_cli.streaming.auto import AutoPipeline, UnloadedPipeline
from audiosr_cli.streaming.counter import SpeakerCounter
from audiosr_cli.streaming.counting_config import COUNTING
from audiosr_cli.streaming.describe import output_names
from audiosr_cli.streaming.kind_pipeline import KindPipeline
from audiosr_cli.streaming.labelling import Labels
from audiosr_cli.streaming.options import HumPolicy, KindChoice, Options, Quality, Speakers
from audiosr_cli.streaming.pipeline import Pipeline

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
MIN_CUTOFF_HZ = 500.0  # below that too little is left to restore from
# The models that speakers are counted with: the thresholds of counting were chosen with them.
_COUNTING_MODEL, _COUNTING_DENOISER, _COUNTING_MODEL_3 = "spectral2", "spectral_speech", "spectral3"


class CommandOptions(Protocol):
    """The options of one processing command. They are picklable: worker processes build their own pipeline."""

    command: ClassVar[str]  # its name on the command line
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def pipeline(self, options: Options | None = None) -> Pipeline:
        """Load the models and return the pipeline that runs them."""


@dataclass(frozen=True)
class SeparateOptions:
    """Options of ``audiosr separate``.

    Attributes:
        speakers: Number of speakers in the recording; 1 removes noise, and the only output is the speech of everybody;
            "auto" counts those of each recording, 1 to 3.
        model: Name of a bundled model or path of a checkpoint; None picks a bundled model for ``speakers``.
        residual: Whether the last output is the input minus all separated speakers.
        hum: What happens to DC, rumble below 65 Hz and mains hum: "remove" keeps them from the speakers, "share" adds
            equal shares to them, "keep" leaves them to the model.
        quality: "fast" picks a smaller model than "standard" where there is one; "best" runs the standard one, or
            ``model``, twice at starts half a hop of its frames apart, and averages.
        labels: What is found and written of who speaks when, if anything.

    Example:
        >>> from audiosr_cli.pipelines import SeparateOptions
        >>> SeparateOptions(speakers=2, residual=True).pipeline().outputs
        ('speaker1', 'speaker2', 'residual')
    """

    command: ClassVar[str] = "separate"

    speakers: Speakers = 2
    model: str | None = None
    residual: bool = False
    hum: HumPolicy = "remove"
    quality: Quality = "standard"
    labels: Labels | None = None

    def pipeline(self, options: Options | None = None) -> Pipeline:
        """Load the models and return the pipeline that separates speakers.

        Args:
            options: Device, batch size and so on; None uses ``default_options("cpu")``.

        Raises:
            UsageError: If no model separates that many speakers, or ``model`` is given although "fast" or "auto"
                chooses one.
            ModelError: If the model cannot be loaded, or is for another task.
        """
        if self.speakers == "auto":
            single = Pipeline((), None, options or default_options("cpu"), residual=self.residual, labels=self.labels)
            return _counting(self, single)
        options = replace(options or default_options("cpu"), hum=self.hum)
        _check_quality(self.quality, self.model)
        model = self.model or choice.find_separator(self.speakers, self.quality == "fast")
        separation = _separation(self.speakers, model, options, self.residual)
        return replace(separation, quality=self.quality, labels=self.labels)


@dataclass(frozen=True)
class TurnsOptions(SeparateOptions):
    """Options of ``audiosr turns``: those of ``audiosr separate``, with labels that leave the audio out."""

    command: ClassVar[str] = "turns"


@dataclass(frozen=True)
class UpsampleOptions:
    """Options of ``audiosr upsample``.

    Attributes:
        rate: Sample rate of the output in Hz.
        model: Name of a bundled model or path of a checkpoint; "none" only resamples, None uses that for ``kind``.
        cutoff_hz: Frequency above which content is restored; None detects it in every recording.
        sampling: How a diffusion model samples; None uses its defaults. Other models do not accept it.
        kind: What the recordings hold: "speech", "music" or "effects", all other sounds; "auto" detects that of each.

    Example:
        >>> from audiosr_cli.pipelines import UpsampleOptions
        >>> UpsampleOptions(rate=44100, model="none").pipeline().rate
        44100
    """

    command: ClassVar[str] = "upsample"

    rate: int = 48000
    model: str | None = None
    cutoff_hz: float | None = None
    sampling: Sampling | None = None
    kind: KindChoice = "auto"

    def pipeline(self, options: Options | None = None) -> Pipeline:
        """Load the model and return the pipeline that restores bandwidth; models for other kinds are loaded later.

        Args:
            options: Device, batch size and so on; None uses ``default_options("cpu")``.

        Raises:
            UsageError: If a value is out of range, ``sampling`` is given for a model that does not sample, or both
                ``kind`` and ``model`` choose one.
            ModelError: If the model cannot be loaded, or is for another task.
        """
        _check_rate(self.rate)
        if self.cutoff_hz is not None and self.cutoff_hz < MIN_CUTOFF_HZ:
            raise UsageError(f"--cutoff {self.cutoff_hz:g}: must be at least {MIN_CUTOFF_HZ:g} Hz")
        options = options or default_options("cpu")
        if self.kind != "auto" and self.model is not None:
            raise UsageError(f"--kind {self.kind} and --model {self.model} both choose a model; leave one of them out")
        name = self.model or choice.find_upsampler("speech" if self.kind == "auto" else self.kind)
        models = () if name == "none" else (load_for("upsample", name, options.device),)
        if self.sampling is not None and not (models and isinstance(models[0], AudioSR)):
            raise UsageError("--steps, --guidance and --seed need a diffusion model; use --model audiosr_small")
        single = Pipeline(models, self.rate, options, cutoff_hz=self.cutoff_hz, sampling=self.sampling)
        return single if self.model is not None or self.kind != "auto" else _detecting(self, single)


@dataclass(frozen=True)
class SeparateSROptions:
    """Options of ``audiosr separate-sr``.

    Attributes:
        speakers: As in ``SeparateOptions``.
        rate: Sample rate of the outputs in Hz; None keeps the input's.
        model: Model that separates; None picks the bundled one with the lowest sample rate.
        restorer: Model that restores each speaker's high frequencies from the mixture; "none" leaves that to the
            upsampler, None picks a bundled model if one fits.
        upsampler: Model that restores frequencies that the mixture lacks; None uses the default one if ``rate`` is
            given or there is no restorer.
        hum: As in ``SeparateOptions``.
        quality: "best" averages the separator as in ``SeparateOptions``; "fast" and "standard" are the same, as the
            separator with the lowest sample rate is the fast one.
        labels: As in ``SeparateOptions``.

    Example:
        >>> from audiosr_cli.pipelines import SeparateSROptions
        >>> SeparateSROptions(speakers=2).pipeline().outputs
        ('speaker1', 'speaker2')
    """

    command: ClassVar[str] = "separate-sr"

    speakers: Speakers = 2
    rate: int | None = None
    model: str | None = None
    restorer: str | None = None
    upsampler: str | None = None
    hum: HumPolicy = "remove"
    quality: Quality = "standard"
    labels: Labels | None = None

    def pipeline(self, options: Options | None = None) -> Pipeline:
        """Load the models and return the pipeline that separates at a low sample rate and restores bandwidth.

        Args:
            options: Device, batch size and so on; None uses ``default_options("cpu")``.

        Raises:
            UsageError: If a value is out of range, the models do not fit each other, or ``model`` is given although
                "fast" or "auto" chooses one.
            ModelError: If a model cannot be loaded, or is for another task.
        """
        _check_quality(self.quality, self.model)
        if self.rate is not None:
            _check_rate(self.rate)
        elif self.upsampler is not None and self.restorer != "none":
            raise UsageError("--upsampler has no effect without --rate; give --rate, or use --restorer none")
        if self.speakers == "auto":
            options = options or default_options("cpu")
            upsamplers = (
                [load_for("upsample", self.upsampler or choice.find_upsampler("speech"), options.device)]
                if self.rate or self.upsampler
                else []
            )
            return _counting(self, Pipeline(tuple(upsamplers), self.rate, options, labels=self.labels))
        options = replace(options or default_options("cpu"), hum=self.hum)
        model = self.model or choice.find_separator(self.speakers, lowest_rate=True)
        separation = _separation(self.speakers, model, options)
        separator = separation.models[0]
        name = self.restorer or choice.find_restorer(separator.spec)
        restorers = [] if name == "none" else [load_restorer(name, separator, options.device)]
        upsamplers = []
        if self.rate or self.upsampler or not restorers:
            upsamplers = [load_for("upsample", self.upsampler or choice.find_upsampler("speech"), options.device)]
        models = (separator, *restorers, *upsamplers)
        return replace(separation, models=models, rate=self.rate, quality=self.quality, labels=self.labels)


@dataclass(frozen=True)
class PipelineConfig:
    """A pipeline before its models are loaded: a command's own options, and those that all commands share."""

    command: CommandOptions
    options: Options

    def build(self) -> Pipeline:
        """Load the models and return the pipeline.

        Raises:
            AudioSRError: If the options are invalid or a model cannot be loaded.
        """
        return replace(self.command.pipeline(self.options), command=self.command.command)


def default_options(device: str = "auto") -> Options:
    """Return the defaults of all commands on ``device`` ("auto", "cpu" or "cuda")."""
    device = pick_device(device)
    return Options(device, bf16=pick_bf16("auto", device), threads=pick_threads())


def _check_rate(rate: int) -> None:
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        hint = f"did you mean {rate}k?" if MIN_RATE_HZ <= 1000 * rate <= MAX_RATE_HZ else None
        raise UsageError(f"--rate {rate}: must be between {MIN_RATE_HZ} and {MAX_RATE_HZ} Hz", hint)


def _separation(speakers: int, model: str, options: Options, residual: bool = False) -> Pipeline:
    network = load_for("separate", model, options.device)
    if (own := network.spec.speakers) != speakers:
        does = "separates speech from noise" if own == 1 else f"separates {own} speakers"
        raise UsageError(f"--speakers {speakers}: {network.spec.name} {does}; use --speakers {own}, or another --model")
    return Pipeline((network,), None, options, load_speaker_encoder() if speakers > 1 else None, residual)


def _counting(command: SeparateOptions | SeparateSROptions, single: Pipeline) -> AutoPipeline:
    """Return the pipeline that counts speakers.

    Args:
        command: The options of all pipelines.
        single: The pipeline for one speaker, if no model separates one from the rest.
    """
    if command.model is not None:
        raise UsageError(
            f"--speakers auto: chooses a model for each recording; leave --model {command.model} out, or give the "
            "number of speakers"
        )
    counts = range(1, COUNTING.max_speakers + 1)
    by_count = tuple(_candidate(replace(command, speakers=n), n, single) for n in counts)
    separator, denoiser, separator3 = (
        load_for("separate", name, single.options.device)
        for name in (_COUNTING_MODEL, _COUNTING_DENOISER, _COUNTING_MODEL_3)
    )
    counter = SpeakerCounter(separator, load_speaker_encoder(), COUNTING, denoiser, separator3)
    return AutoPipeline(
        (),
        single.rate,
        single.options,
        residual=single.residual,
        labels=single.labels,
        by_count=by_count,
        counter=counter,
    )


def _detecting(command: UpsampleOptions, speech: Pipeline) -> Pipeline:
    """Return the pipeline that detects the kind of recordings, or that for ``speech`` if it is for all of them."""
    names: dict[Kind, str] = {kind: choice.find_upsampler(kind) for kind in get_args(Kind)}
    others = {name: _unloaded(command, kind, name, speech) for kind, name in names.items() if name != names["speech"]}
    if not others:
        return speech
    by_kind = {kind: others[name] for kind, name in names.items() if name in others}
    own = {key: getattr(speech, key) for key in ("models", "rate", "options", "cutoff_hz", "sampling")}
    return KindPipeline(**own, by_kind=by_kind, classifier=load_classifier())


def _unloaded(command: UpsampleOptions, kind: Kind, name: str, speech: Pipeline) -> UnloadedPipeline:
    """Return the pipeline for recordings of a kind, whose model has a name."""
    checkpoints = {name: catalogue.entries()[name]["sha256"]}
    return UnloadedPipeline(speech.outputs, checkpoints, partial(replace(command, kind=kind).pipeline, speech.options))


def _candidate(
    command: SeparateOptions | SeparateSROptions, speakers: int, single: Pipeline
) -> Pipeline | UnloadedPipeline:
    """Return the pipeline for so many speakers; separators alone are loaded when a recording needs them."""
    if speakers == 1 and not choice.has_separator(1):
        return single
    if isinstance(command, SeparateSROptions):  # the user may have named models, which must fit
        return command.pipeline(single.options)
    names = [
        choice.find_separator(speakers, command.quality == "fast"),
        *([default_model("embed")] if speakers > 1 else []),
    ]
    checkpoints = {name: catalogue.entries()[name]["sha256"] for name in names}
    outputs = output_names(speakers, speakers == 1, command.residual)
    return UnloadedPipeline(outputs, checkpoints, partial(command.pipeline, single.options))


def _check_quality(quality: Quality, model: str | None) -> None:
    """Raise UsageError if both choose a model."""
    if quality == "fast" and model is not None:
        raise UsageError(
            f"--quality fast and --model {model} both choose a model; leave one of them out (best works with any model)"
        )
