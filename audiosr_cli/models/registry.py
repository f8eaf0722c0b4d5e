"""The registry of architectures: those of this package, and those that installed packages add.

An architecture is a model class with its config class under one name, which configs and checkpoints use. A model of
this package registers itself when ``audiosr_cli.models`` is imported. A model of another package does so when its
entry point is loaded, which happens the first time its name is asked for. See docs/adding-a-model.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from audiosr_cli.config import fill, hint
from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.models.base import Config, Model

ENTRY_POINTS = "audiosr_cli.models"  # the group; each entry point has the name of an architecture

_ModelClass = TypeVar("_ModelClass", bound=type[Model])


@dataclass(frozen=True)
class Architecture:
    """A model class and the frozen dataclass that configures it."""

    name: str
    config: type[Any]
    model: type[Model]


_REGISTERED: dict[str, Architecture] = {}


def register(name: str, config: type[Any]) -> Callable[[_ModelClass], _ModelClass]:
    """Register the decorated model class as the architecture ``name``.

    Args:
        name: What ``[model] architecture`` in a training config and the metadata of a checkpoint say.
        config: A frozen dataclass with a default for every field and a property ``spec``. Its instances are the only
            argument of the model class.

    Returns:
        A class decorator that returns the class unchanged.

    Raises:
        ModelError: Another class has this name already.

    Example:
        >>> from audiosr_cli.models.conv_tasnet import ConvTasNet, ConvTasNetConfig
        >>> @register("my_tasnet", ConvTasNetConfig)
        ... class MyTasNet(ConvTasNet):
        ...     pass
    """

    def decorate(model: _ModelClass) -> _ModelClass:
        other = _REGISTERED.get(name)
        if other is not None and _full_name(other.model) != _full_name(model):  # a notebook's cell may run again
            raise ModelError(
                f"cannot register {_full_name(model)} as {name!r}: {_full_name(other.model)} has that name; "
                "choose another"
            )
        _REGISTERED[name] = Architecture(name, config, model)
        return model

    return decorate


def _full_name(model: type[Model]) -> str:
    return f"{model.__module__}.{model.__qualname__}"


def architectures() -> list[str]:
    """Return the sorted names of all architectures, without loading any entry point."""
    return sorted({*_REGISTERED, *(entry.name for entry in entry_points(group=ENTRY_POINTS))})


def get_architecture(name: str) -> Architecture:
    """Return the architecture ``name``, and load its entry point if another package provides it.

    Raises:
        ModelError: There is no such architecture, or the package that provides it cannot be imported.
    """
    if name not in _REGISTERED:
        _load_entry_point(name)
    if name not in _REGISTERED:
        raise ModelError(f"unknown architecture {name!r}{hint(str(name), architectures())}")
    return _REGISTERED[name]


def _load_entry_point(name: str) -> None:
    """Import what the entry point ``name`` refers to, if there is one; that registers the architecture."""
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            entry.load()
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"architecture {name!r}: {entry.value} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if name not in _REGISTERED:
            raise ModelError(
                f"architecture {name!r}: {entry.value} registers no such architecture; "
                f"decorate the model class with @register({name!r}, …)"
            )


def make_config(architecture: str, values: dict[str, Any]) -> Config:
    """Return the config of ``architecture`` with ``values`` in place of its defaults.

    Args:
        architecture: A registered name.
        values: Fields of the config class, as JSON or TOML give them; lists become tuples.

    Raises:
        ModelError: The architecture or a field is unknown, or the values are impossible.
    """
    kind = get_architecture(architecture).config
    try:
        config: Config = fill(kind, "model", values)
        config.spec  # noqa: B018 - a spec checks its numbers, too
    except UsageError as error:
        raise ModelError(f"{architecture}: {error}") from error
    except (TypeError, ZeroDivisionError) as error:
        raise ModelError(f"invalid config for {architecture}: {error or values}") from error
    if not re.fullmatch(r"[\w.+-]+", config.spec.name):
        raise ModelError(f"{architecture}: name = {config.spec.name!r}: only letters, digits and . _ + - are allowed")
    return config


def build(architecture: str, config: Config) -> Model:
    """Return a model with freshly initialised weights.

    Raises:
        ModelError: The architecture is unknown.
    """
    return get_architecture(architecture).model(config)


def architecture_of(model: Model) -> str:
    """Return the name under which the class of ``model`` is registered.

    Raises:
        ModelError: It is not registered.
    """
    for name, architecture in _REGISTERED.items():
        if architecture.model is type(model):
            return name
    raise ModelError(f"{_full_name(type(model))} is not registered; decorate the class with @register(name, Config)")
