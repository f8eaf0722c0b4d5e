"""Separate speakers and restore the bandwidth of recordings of any length.

``separate``, ``upsample`` and ``separate_sr`` process an array, a file or its bytes and return a ``Result``. They are
imported on first use, because importing torch takes seconds.
"""

from typing import TYPE_CHECKING, Any

from audiosr_cli.errors import (
    AudioSRError,
    AudioSRWarning,
    InputError,
    ModelError,
    OutputError,
    SampleError,
    UsageError,
)

__version__ = "0.2.0"
__all__ = [
    "AudioSRError",
    "AudioSRWarning",
    "InputError",
    "ModelError",
    "OutputError",
    "Report",
    "Result",
    "SampleError",
    "Turn",
    "UsageError",
    "__version__",
    "list_models",
    "load_model",
    "separate",
    "separate_sr",
    "upsample",
]

if TYPE_CHECKING:
    from audiosr_cli.api import Report, Result, Turn, list_models, load_model, separate, separate_sr, upsample


def __getattr__(name: str) -> Any:
    if name in __all__:
        from audiosr_cli import api

        return getattr(api, name)
    raise AttributeError(f"module 'audiosr_cli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
