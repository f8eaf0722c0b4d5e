"""The Python interface: what the commands do, for arrays, files and bytes, with the same options and defaults.

All functions return a ``Result`` and raise an ``AudioSRError`` whatever goes wrong. What the command prints as a
warning is an ``AudioSRWarning``. Messages name the options of the command; read ``--nonfinite zero`` as
``nonfinite="zero"``.
"""

from __future__ import annotations

from audiosr_cli.api.models import list_models, load_model
from audiosr_cli.api.processing import Result, separate, separate_sr, upsample
from audiosr_cli.conversation.turns import Turn
from audiosr_cli.streaming.report import Report

__all__ = ["Report", "Result", "Turn", "list_models", "load_model", "separate", "separate_sr", "upsample"]
