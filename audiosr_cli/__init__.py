"""Separates speakers and restores bandwidth in recordings of any length.

``separate``, ``upsample`` and ``separate_sr`` take arrays or paths and return arrays; ``load_model`` gives
the network alone. They are loaded on first use, as torch takes seconds to import.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["__version__", "load_model", "separate", "separate_sr", "upsample"]

if TYPE_CHECKING:
    from audiosr_cli.api import separate, separate_sr, upsample
    from audiosr_cli.checkpoints.store import load_model


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from audiosr_cli.checkpoints.store import load_model

        return load_model
    if name in __all__:
        from audiosr_cli import api

        return getattr(api, name)
    raise AttributeError(f"module 'audiosr_cli' has no attribute {name!r}")
