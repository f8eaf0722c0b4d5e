"""``audiosr turns``."""

from __future__ import annotations

from audiosr_cli.cli import label_options, options, run_batch
from audiosr_cli.errors import UsageError


@options.processing
@label_options.alone
def turns(
    inputs: options.Inputs = None,
    speakers: options.Speakers = 2,
    model: options.Model = None,
    quality: options.Quality = "standard",
    hum: options.Hum = "remove",
    *,
    labels: label_options.TurnOptions,
    shared: options.Shared,
) -> None:
    """Write who speaks when, overlaps included, and no audio.

    For talk.wav it writes talk_turns.rttm, or what --labels names. Speakers are separated as audiosr separate does it;
    the times are those of its tracks. A single format can go to standard output: -o -
    """
    from audiosr_cli.pipelines import TurnsOptions

    for option, value in (
        ("--format", shared.container),
        ("--subtype", shared.subtype),
        ("--bitrate", shared.bitrate),
        ("--spectrogram", shared.spectrogram),
    ):
        if value is not None:
            raise UsageError(f"{option} {value}: turns writes no audio; leave {option} out")
    command = TurnsOptions(speakers, model, False, hum, quality, labels.combined())
    run_batch.run_batch(inputs, command, "{stem}_{speaker}.{ext}", shared)
