"""Starting a run from trained weights: as they are, or grown to a larger network."""

from __future__ import annotations

import torch

from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.models import Model, architecture_of
from audiosr_cli.models.spectral_unet import SpectralUNet, SpectralUNetConfig
from audiosr_cli.train.log import Log
from audiosr_cli.train.resize import grow
from audiosr_cli.train.tasks import Separation, Task


def warm_start(model: Model, task: Task, name: str, log: Log) -> None:
    """Give ``model`` the weights of a bundled model or a checkpoint.

    A larger SpectralUNet grows from a smaller one. Any other model of more sources takes what there is for the first
    ones; what is for the others starts fresh.

    Args:
        model: The network to train, of any weights; they are replaced.
        task: What it is trained for.
        name: A bundled model's name or a checkpoint's path.
        log: Gets a row where the network grew.

    Raises:
        ModelError: If the weights do not fit.
        UsageError: If ``task`` could not train what is new in the network.
    """
    from audiosr_cli.checkpoints.store import load_model

    trained = load_model(name)
    if isinstance(model, SpectralUNet) and isinstance(trained, SpectralUNet):
        try:
            grown = grow(trained, model.config)
        except ModelError as error:
            raise ModelError(f"--init {name}: {error}") from error
        if model.spec.sources > trained.spec.sources:
            check_silent_sources(task, model.config)
        model.load_state_dict(grown.state_dict())
        before, after = (sum(weight.numel() for weight in each.parameters()) for each in (trained, model))
        if before != after:
            log.write({"event": "grown", "init": name, "parameters_before": before, "parameters": after})
        return
    _copy_weights(model, trained, name)


def check_silent_sources(task: Task, config: SpectralUNetConfig) -> None:
    """Raise UsageError where new sources, which start silent, would stay so: SI-SNR of silence has no gradient.

    The level's error and the share of what the sources lack of the mixture do have one.
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
        there = theirs[key].shape if key in theirs else None
        here = own[key].shape if key in own else None
        grows = more and there and here and there[0] < here[0] and there[1:] == here[1:]
        if there != here and not grows:
            text = f"{key!r} is {tuple(there or ()) or 'missing'} there, {tuple(here or ()) or 'missing'} here"
            raise ModelError(f"--init {name}: its weights do not fit this [model]: {text}; use the same sizes")
    with torch.no_grad():
        for key, value in theirs.items():
            target = own[key] if own[key].shape == value.shape else own[key][: len(value)]
            target.copy_(value)
