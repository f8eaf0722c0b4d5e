"""The Python interface: what each command does, for arrays and paths, through the same stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.checkpoints import catalogue
from audiosr_cli.checkpoints.catalogue import default_model
from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.models import Model
from audiosr_cli.models.audiosr import AudioSR
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.device import pick_bf16, pick_device, pick_threads
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.pipeline import Pipeline, Source

_LEAST_CUTOFF_HZ = 500.0


def default_options(device: str = "auto") -> Options:
    """What the commands have unless told otherwise, on ``device``."""
    device = pick_device(device)
    return Options(device, bf16=pick_bf16("auto", device), threads=pick_threads())


def _load(task: str, model: str | None, options: Options) -> Model:
    network = load_model(model or default_model(task), options.device)
    if network.spec.task != task:
        raise ModelError(f"{network.spec.name} is a model to {network.spec.task}, not to {task}")
    return network


def _check_rate(rate: int) -> None:
    if not 1_000 <= rate <= 768_000:
        raise UsageError(f"--rate {rate}: 1000 to 768000 Hz is possible")


def load_speaker_encoder() -> SpeakerEncoder:
    """The bundled network that tells voices apart; on the CPU, where what is separated comes back to."""
    network = load_model(default_model("embed"))
    assert isinstance(network, SpeakerEncoder)
    return network


def _separator(speakers: int, cheapest: bool = False) -> str:
    """The bundled model that parts so many, or of several the one at the lowest rate. Raises UsageError without one."""
    models = {
        name: catalogue.metadata(catalogue.folder() / entry["file"])["spec"]
        for name, entry in catalogue.entries().items()
        if "separate" in entry["tasks"]
    }
    fitting = [name for name, spec in models.items() if spec["sources"] == speakers]
    if fitting:
        return min(fitting, key=lambda name: models[name]["in_rate"]) if cheapest else fitting[0]
    known = ", ".join(f"{spec['sources']} ({name})" for name, spec in models.items())
    raise UsageError(
        f"--speakers {speakers}: the bundled models part {known}; --model takes your own, see audiosr models import"
    )


def separation(
    speakers: int, model: str | None = None, options: Options | None = None, residual: bool = False
) -> Pipeline:
    """The pipeline of ``separate``. Raises UsageError where no model parts that many speakers."""
    options = options or default_options("cpu")
    network = _load("separate", model or _separator(speakers), options)
    if network.spec.sources != speakers:
        raise UsageError(f"--speakers {speakers}: {network.spec.name} separates {network.spec.sources}")
    return Pipeline((network,), None, options, load_speaker_encoder(), residual)


def upsampling(
    rate: int = 48000,
    model: str | None = None,
    options: Options | None = None,
    cutoff_hz: float | None = None,
    sampling: Sampling | None = None,
) -> Pipeline:
    """The pipeline of ``upsample``: up to ``rate`` Hz, above ``cutoff_hz`` or where content is found to end.

    ``model`` "none" only resamples. ``sampling`` is for models that draw what they add.
    """
    _check_rate(rate)
    if cutoff_hz is not None and cutoff_hz < _LEAST_CUTOFF_HZ:
        raise UsageError(f"--cutoff {cutoff_hz:g}: at least {_LEAST_CUTOFF_HZ:g} Hz are needed to restore from")
    options = options or default_options("cpu")
    models = () if model == "none" else (_load("upsample", model, options),)
    if sampling is not None and not (models and isinstance(models[0], AudioSR)):
        raise UsageError("--steps, --guidance and --seed are for a model that draws: --model audiosr_small")
    return Pipeline(models, rate, options, cutoff_hz=cutoff_hz, sampling=sampling)


def restoration(
    speakers: int,
    rate: int | None = None,
    model: str | None = None,
    restorer: str | None = None,
    upsampler: str | None = None,
    options: Options | None = None,
) -> Pipeline:
    """The pipeline of ``separate-sr``: separate at the lowest rate, restore every source's band from the mixture.

    ``restorer`` "none" leaves that to the upsampler, which otherwise adds what a mixture below ``rate`` lacks.
    """
    if rate is not None:
        _check_rate(rate)
    elif upsampler is not None and restorer != "none":
        raise UsageError("--upsampler adds what a recording below --rate lacks; give a --rate, or --restorer none")
    options = options or default_options("cpu")
    parted = separation(speakers, model or _separator(speakers, cheapest=True), options)
    cutoff = parted.models[0].spec.out_rate / 2
    name = restorer or _restorer(cutoff)
    restorers = []
    if name != "none":
        network = _load("separate-sr", name, options)
        if not _restores(network.spec.cutoff_hz, cutoff):
            raise UsageError(
                f"{network.spec.name} restores what lies above {network.spec.cutoff_hz:.0f} Hz; the speakers of "
                f"{parted.models[0].spec.name} end at {cutoff:.0f} Hz"
            )
        restorers = [network.fitted(network.spec.in_rate, speakers)]
        if (known := restorers[0].spec.sources) != speakers:
            raise UsageError(f"--speakers {speakers}: {network.spec.name} restores {known}")
    upsamplers = [_load("upsample", upsampler, options)] if rate or upsampler or not restorers else []
    return replace(parted, models=(*parted.models, *restorers, *upsamplers), rate=rate)


def _restorer(cutoff: float) -> str:
    """The bundled restorer for sources that end at ``cutoff`` Hz, or "none"."""
    for name, entry in catalogue.entries().items():
        path = catalogue.folder() / entry["file"]
        if "separate-sr" in entry["tasks"] and _restores(catalogue.metadata(path)["spec"]["cutoff_hz"], cutoff):
            return name
    return "none"


def _restores(begins: float, cutoff: float) -> bool:
    """Whether what begins at ``begins`` Hz goes on where a resampled source that ends at ``cutoff`` Hz fades out."""
    return 0.8 * cutoff <= begins <= cutoff


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
    clipped. The result is in memory; ``api.separation(2).write(path, targets)`` streams files. Raises
    AudioSRError.
    """
    return _array(separation(speakers, model, default_options(device)), source, sample_rate)


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

    ``source`` as in ``separate``; ``api.upsampling().write(path, targets)`` streams files. Raises AudioSRError.
    """
    pipeline = upsampling(rate, model, default_options(device), cutoff_hz, sampling)
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
    pipeline = restoration(speakers, rate, model, restorer, upsampler, default_options(device))
    return _array(pipeline, source, sample_rate)
