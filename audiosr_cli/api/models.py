"""The bundled models, by name and as torch modules."""

from __future__ import annotations

import os
from typing import get_args

from audiosr_cli import arguments
from audiosr_cli.api.translate import errors_of
from audiosr_cli.checkpoints import catalogue, store
from audiosr_cli.contract import Task
from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model
from audiosr_cli.runtime.device import pick_device


def load_model(model: str | os.PathLike[str], device: str = "cpu") -> Model:
    """Load a model as a torch module, in evaluation mode and float32.

    Args:
        model: Name of a bundled model or path of a checkpoint.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        The network. It maps (B, C, T) float32 at ``spec.in_rate`` Hz to (B, S, C, (T - 2 * context) * ratio); see
        ``spec``.

    Raises:
        UsageError: If an argument is invalid, or there is no such device.
        ModelError: If the model does not exist, is damaged or does not fit its configuration.

    Example:
        >>> import audiosr_cli
        >>> network = audiosr_cli.load_model(audiosr_cli.list_models("separate")[0])
        >>> network.spec.sources
        2
    """
    name = arguments.model_name("model", model)
    if name is None:
        raise UsageError("model = None: expected the name of a bundled model or the path of a checkpoint")
    with errors_of("load_model"):
        return store.load_model(name, pick_device(device))


def list_models(task: str | None = None) -> list[str]:
    """List the names of the bundled models.

    Args:
        task: "separate", "upsample", "separate-sr", "embed" or "classify"; None lists the models of all tasks.

    Returns:
        Names for ``model``. The first one for a task is its default.

    Raises:
        UsageError: If there is no such task.
        ModelError: If the bundled models are missing from the installation.

    Example:
        >>> import audiosr_cli
        >>> len(audiosr_cli.list_models("upsample")) > 0
        True
    """
    if task is not None:
        arguments.choice("task", task, get_args(Task))
    return [name for name, entry in catalogue.entries().items() if task is None or task in entry["tasks"]]
