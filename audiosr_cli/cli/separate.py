"""``audiosr separate``."""

from __future__ import annotations

from audiosr_cli.cli import label_options, options, run_batch


@options.processing
@label_options.beside_audio
def separate(
    inputs: options.Inputs = None,
    speakers: options.Speakers = 2,
    model: options.Model = None,
    quality: options.Quality = "standard",
    residual: options.Residual = False,
    hum: options.Hum = "remove",
    *,
    labels: label_options.LabelOptions,
    shared: options.Shared,
) -> None:
    """Write one file per speaker, at the input's sample rate.

    For mix.wav it writes mix_speaker1.wav, mix_speaker2.wav and so on, and prints their names. Levels do not change.

    With --speakers 1 it removes noise and writes all speech, of one or more people, to mix_speech.wav.
    """
    from audiosr_cli.pipelines import SeparateOptions

    command = SeparateOptions(speakers, model, residual, hum, quality, labels.combined())
    run_batch.run_batch(inputs, command, "{stem}_{speaker}.{ext}", shared)
