"""Models for a purpose: loaded, and checked to be for it."""

from __future__ import annotations

from audiosr_cli.checkpoints import catalogue, choice
from audiosr_cli.checkpoints.catalogue import default_model
from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.errors import ModelChoiceError, UsageError
from audiosr_cli.models import Model
from audiosr_cli.models.audio_classifier import AudioClassifier
from audiosr_cli.models.speaker_encoder import SpeakerEncoder


def load_speaker_encoder() -> SpeakerEncoder:
    """Load the bundled speaker encoder. It runs on the CPU, to which separated audio returns anyway."""
    network = load_model(default_model("embed"))
    assert isinstance(network, SpeakerEncoder)
    return network


def load_classifier() -> AudioClassifier:
    """Load the bundled audio classifier, on the CPU. Raises ModelError."""
    network = load_model(default_model("classify"))
    assert isinstance(network, AudioClassifier)
    return network


def load_for(task: str, model: str | None, device: str) -> Model:
    """Load a model for a task.

    Args:
        task: Such as "separate".
        model: Name of a bundled model or path of a checkpoint; None for the default one.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ModelError: If the model cannot be loaded, or is for another task.
    """
    network = load_model(model or default_model(task), device)
    if network.spec.task != task:
        message = f"{network.spec.name}: expected a model for {task}; this one is for {network.spec.task}"
        raise ModelChoiceError(message, f"models for {task}: {', '.join(catalogue.names(task))}")
    return network


def load_restorer(name: str, separator: Model, device: str) -> Model:
    """Load a restorer that continues where the tracks of ``separator`` end; it restores the rest, too, if any.

    Raises:
        ModelError: If the model cannot be loaded, or is no restorer.
        UsageError: If it does not continue the tracks.
    """
    network = load_for("separate-sr", name, device)
    cutoff_hz = separator.spec.out_rate / 2
    if not choice.continues(network.spec.cutoff_hz, cutoff_hz):
        raise UsageError(
            f"--restorer {name}: {network.spec.name} restores frequencies above {network.spec.cutoff_hz:.0f} Hz, but "
            f"the tracks of {separator.spec.name} end at {cutoff_hz:.0f} Hz; use another --restorer, or none"
        )
    sources = separator.spec.sources
    fitted = network.fitted(network.spec.in_rate, sources) if sources > 1 else network
    if fitted.spec.sources != sources:
        raise UsageError(
            f"--restorer {name}: {network.spec.name} restores {fitted.spec.sources} sources, but the outputs of "
            f"{separator.spec.name} are {sources}; use --restorer none"
        )
    return fitted
