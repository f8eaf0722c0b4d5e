"""Which models of a pipeline a recording needs, and with which arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from audiosr_cli.models import Model
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.models.runner import ModelCall

# Where a resampled recording fades out, as shares of half its rate: from here on, and with 3 dB lost. soxr's HQ filter
# has lost 0.1 dB at 0.931 and 3 dB at 0.950; other resamplers are gentler. Set by hand, November 2026.
_PASSBAND = 0.9
_MINUS_3_DB = 0.945
# The cutoff that models expect, where 3 dB are lost, as a share of the detected cutoff, at which content ends. Set by
# hand, November 2026, so that the cutoffs of soxr at 8, 16 and 24 kHz are met (tests/streaming/test_recording.py).
_DETECTED_TO_MINUS_3_DB = 0.985
# Nothing is restored if content reaches 20 kHz, the limit of hearing.
_FULL_BAND_HZ = 20000.0
# Windows that --quality best averages. Two had 0.18 dB more than one, four 0.23 (24 mixtures, spectral2).
_BEST_STARTS = 2


def choose_models(
    models: Sequence[Model],
    rate: int | None,
    sample_rate: int,
    cutoff_hz: float | None,
    call: Callable[[Model, float], ModelCall],
) -> tuple[ModelCall, ...]:
    """Choose the models that a recording needs.

    Restorers are for recordings with content above the separator's band, upsamplers for output with a higher band
    than what reaches them. An upsampler that comes first is not for silence.

    Args:
        models: In the order of processing.
        rate: Sample rate of the output in Hz; None for that of the recording.
        sample_rate: Of the recording, in Hz.
        cutoff_hz: Of the recording, in Hz; None for silence.
        call: Returns a model with the arguments it takes for content that ends at a frequency in Hz.

    Returns:
        The models with their arguments; maybe none.
    """
    rate_is_enough = any(model.spec.inputs > 1 for model in models) and (rate or 0) <= sample_rate
    full_band = min(_FULL_BAND_HZ, _PASSBAND * (rate or sample_rate) / 2)
    restores = bool(models) and models[0].spec.task == "upsample"
    if restores and (cutoff_hz is None or cutoff_hz >= full_band):
        return ()

    def is_needed(model: Model) -> bool:
        if model.spec.inputs > 1:
            return _PASSBAND * sample_rate / 2 > model.spec.cutoff_hz
        return model.spec.task != "upsample" or not (rate_is_enough or cutoff >= full_band)

    calls = list[ModelCall]()
    cutoff = own = min(_DETECTED_TO_MINUS_3_DB * (cutoff_hz or math.inf), _MINUS_3_DB * sample_rate / 2)
    for model in filter(is_needed, models):
        calls.append(call(model.fitted(sample_rate, model.spec.sources), cutoff))
        # A restorer also sees the recording, and so restores content up to the recording's own cutoff.
        cutoff = min(own if model.spec.inputs > 1 else cutoff, _MINUS_3_DB * calls[-1].spec.out_rate / 2)
    return tuple(calls)


def model_call(model: Model, cutoff_hz: float | None, best: bool, sampling: Sampling | None) -> ModelCall:
    """Return a model with the arguments it takes.

    Args:
        model: The model.
        cutoff_hz: Where the content of its input ends, in Hz.
        best: Whether separators are averaged over windows that start half a hop of their frames apart.
        sampling: How a diffusion model draws; None for its default.
    """
    spec = model.spec
    starts = _BEST_STARTS if best and spec.task == "separate" else 1
    drawing = sampling if spec.uses_position else None
    return ModelCall(model, cutoff_hz if spec.uses_cutoff else None, drawing, starts)
