"""Start a run from trained weights: unchanged, or grown to a larger network."""

from __future__ import annotations

import torch

from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.models import Model, architecture_of
from audiosr_cli.models.spectral_bwe import SpectralBWE
from audiosr_cli.models.spectral_unet import SpectralUNet, SpectralUNetConfig
from audiosr_cli.train.log import Log
from audiosr_cli.train.resize import grow, speech_and_rest
from audiosr_cli.train.resize_bwe import grow_bwe
from audiosr_cli.train.tasks import Separation, SpeechAndRest, TrainingTask


def warm_start(model: Model, task: TrainingTask, name: str, log: Log) -> None:
    """Load the weights of a bundled model or a checkpoint into ``model``.

    A larger SpectralUNet or SpectralBWE is grown from a smaller one. For the task speech-and-rest, a SpectralUNet that
    separates speakers becomes one whose outputs are the sum of its speakers and the rest, and is grown then. In any
    other model with more sources, the weights of the additional sources keep their random initial values.

    Args:
        model: The network to train; its weights are replaced.
        task: What the model is trained for.
        name: Name of a bundled model, or path of a checkpoint.
        log: Gets an event if the network grew.

    Raises:
        ModelError: If the weights do not fit.
        UsageError: If ``task`` cannot train the new sources.
    """
    from audiosr_cli.checkpoints.store import load_model

    trained = load_model(name)
    if isinstance(model, SpectralUNet) and isinstance(trained, SpectralUNet):
        converts = isinstance(task, SpeechAndRest) and not trained.spec.rest
        try:
            grown = grow(speech_and_rest(trained) if converts else trained, model.config)
        except ModelError as error:
            raise ModelError(f"--init {name}: {error}") from error
        if model.spec.sources > trained.spec.sources:
            check_silent_sources(task, model.config)
        model.load_state_dict(grown.state_dict())
        _log_growth(log, name, trained, model, always=converts)
        return
    if isinstance(model, SpectralBWE) and isinstance(trained, SpectralBWE):
        try:
            model.load_state_dict(grow_bwe(trained, model.config).state_dict())
        except ModelError as error:
            raise ModelError(f"--init {name}: {error}") from error
        _log_growth(log, name, trained, model)
        return
    if isinstance(task, SpeechAndRest) and not trained.spec.rest:
        raise ModelError(
            f"--init {name}: a {architecture_of(trained)} that separates speakers cannot start speech-and-rest; use a "
            "spectral_unet, or weights that were trained for speech-and-rest"
        )
    _copy_weights(model, trained, name)


def _log_growth(log: Log, name: str, trained: Model, model: Model, always: bool = False) -> None:
    """Write an event if the network grew, or ``always``."""
    before, after = (sum(weight.numel() for weight in each.parameters()) for each in (trained, model))
    if before != after or always:
        log.write({"event": "grown", "init": name, "parameters_before": before, "parameters": after})


def check_silent_sources(task: TrainingTask, config: SpectralUNetConfig) -> None:
    """Raise UsageError if new sources, which start silent, would stay silent: SI-SNR of silence has no gradient.

    The error of the level, and the residual that mixture consistency distributes, do have one.
    """
    loss = task.loss if isinstance(task, Separation) else ""
    if loss in ("si_snr", "thresholded_si_snr") and config.consistency == "use":
        raise UsageError(
            f"[task] loss = {loss!r}: new sources start silent and would stay silent; use loss = 'si_snr_and_level'"
        )


def _copy_weights(model: Model, trained: Model, name: str) -> None:
    if type(model) is not type(trained):
        raise ModelError(
            f"--init {name}: its weights do not fit this [model], as it is a {architecture_of(trained)} and not a "
            f"{architecture_of(model)}; use weights of the same architecture"
        )
    own, theirs = model.state_dict(), trained.state_dict()
    more = model.spec.sources > trained.spec.sources
    for key in sorted(set(own) | set(theirs)):
        trained_shape = theirs[key].shape if key in theirs else None
        shape = own[key].shape if key in own else None
        grows = more and trained_shape and shape and trained_shape[0] < shape[0] and trained_shape[1:] == shape[1:]
        if trained_shape != shape and not grows:
            text = f"{key!r} is {tuple(trained_shape or ()) or 'missing'} there, {tuple(shape or ()) or 'missing'} here"
            raise ModelError(f"--init {name}: its weights do not fit this [model]: {text}; use the same sizes")
    with torch.no_grad():
        for key, value in theirs.items():
            target = own[key] if own[key].shape == value.shape else own[key][: len(value)]
            target.copy_(value)
