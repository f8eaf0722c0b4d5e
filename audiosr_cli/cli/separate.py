"""``audiosr separate``."""

from __future__ import annotations

from audiosr_cli.cli import common, running


@common.processing
def separate(
    inputs: common.Inputs = None,
    speakers: common.Speakers = 2,
    model: common.Model = None,
    residual: common.Residual = False,
    *,
    shared: common.Shared,
) -> None:
    """Part overlapping speakers into one file each, at the input's rate.

    Writes mix_speaker1.wav, mix_speaker2.wav … for mix.wav and prints their names. Levels are kept.
    """
    from audiosr_cli import api

    values = {"speakers": speakers, "model": model, "residual": residual}
    running.run_batch(inputs, api.separation, values, "{stem}_{speaker}.{ext}", shared)
