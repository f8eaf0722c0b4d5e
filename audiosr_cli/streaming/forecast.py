"""Predict how long a model takes for a recording."""

from __future__ import annotations

import time

import torch

from audiosr_cli.models.runner import ModelCall, ModelRunner
from audiosr_cli.runtime.threads import thread_pool
from audiosr_cli.streaming.options import Options

# Windows below which no duration is predicted, as they are done within seconds. Set by hand, November 2026.
_MIN_WINDOWS = 16


def predict_seconds(call: ModelCall, duration_s: float, options: Options) -> float | None:
    """Predict how many seconds a model takes, from one window of silence.

    Args:
        call: The model.
        duration_s: Seconds of all channels together.
        options: How the recording is processed.

    Returns:
        None for a few windows.
    """
    windows = duration_s * call.spec.in_rate / call.spec.hop
    if windows < _MIN_WINDOWS:
        return None
    run, started = ModelRunner(call, 1, options.bf16), time.monotonic()
    with thread_pool(1):
        run(torch.zeros(1, 1, call.spec.window), torch.zeros(1, dtype=torch.long))
    parallel = options.threads if call.device.type == "cpu" else 1
    return (time.monotonic() - started) * windows / parallel
