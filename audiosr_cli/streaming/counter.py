"""Count the speakers of a stream: separator → windows in which somebody speaks → embeddings → clusters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from audiosr_cli.audio.resample import Resampler
from audiosr_cli.dsp.hum import InterferenceFilter
from audiosr_cli.dsp.voicing import measure_voicing
from audiosr_cli.models import Model
from audiosr_cli.models.runner import ModelRunner
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.threads import thread_pool
from audiosr_cli.streaming.counting import SpeakerCount, SpeechWindows, count_speakers
from audiosr_cli.streaming.counting_config import COUNTING, CountingConfig
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.windows import Engine


class SpeakerCounter:
    """Counts the speakers of recordings.

    A separator splits those who speak at the same time, so that windows of its tracks hold one voice each. It need not
    have as many tracks as there are speakers: mostly, at most two people speak at once.

    Args:
        separator: Of one channel.
        speaker_encoder: Distinguishes the voices.
        config: Thresholds.
    """

    def __init__(self, separator: Model, speaker_encoder: SpeakerEncoder, config: CountingConfig = COUNTING) -> None:
        assert separator.spec.channels == 1
        self.separator, self.speaker_encoder, self.config = separator, speaker_encoder, config

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that decide."""
        return self.separator, self.speaker_encoder

    def count(self, blocks: Iterable[Samples], sample_rate: int, options: Options) -> SpeakerCount:
        """Count the speakers of a signal.

        Args:
            blocks: (C, T). Samples that are not finite count as zero.
            sample_rate: Hz.
            options: How recordings are processed.

        Returns:
            The number of speakers.
        """
        started, frames = time.monotonic(), 0
        spec, parallel = self.separator.spec, options.threads if self.separator.device.type == "cpu" else 0
        before, hum = Resampler(sample_rate, spec.in_rate, 1), InterferenceFilter(spec.in_rate, 1)
        windows = _Windows(self.speaker_encoder, spec.out_rate, spec.hop * spec.ratio, self.config)
        runner = ModelRunner(self.separator, options.batch, options.bf16)
        with thread_pool(options.threads) as executor:
            engine = Engine(spec, runner, 1, options.batch, windows, executor if parallel else None, parallel)

            def push(block: Samples, last: bool = False) -> None:
                engine.push(torch.from_numpy(hum.push(before.push(block, last), last)[0]))

            for block in blocks:
                frames += block.shape[1]
                push(np.nan_to_num(options.pick_channels(block), posinf=0, neginf=0).mean(0, keepdims=True))
            push(np.zeros((1, 0), np.float32), last=True)
            engine.flush()
        count = count_speakers(windows.speech(), self.config)
        return replace(count, analysed_s=frames / sample_rate, elapsed_s=time.monotonic() - started)


class _Windows:
    """Collects windows of a separator's sources from its cores, one of which begins every ``hop`` samples.

    The centres of the windows are in the middle of a core, as long as a hop; in the first core also before that.
    """

    def __init__(self, speaker_encoder: SpeakerEncoder, sample_rate: int, hop: int, config: CountingConfig) -> None:
        self._encoder, self._rate, self._hop, self._config = speaker_encoder, sample_rate, hop, config
        self._windows = list[tuple[Tensor, Tensor, Tensor]]()  # of S sources: embeddings, powers, whether it is speech

    def __call__(self, tail: Tensor | None, core: Tensor) -> Tensor:
        """Add the windows of ``core`` (S, 1, T), which is returned as it is."""
        config, length = self._config, core.shape[-1]
        size, step = (min(length, round(seconds * self._rate)) for seconds in (config.window_s, config.hop_s))
        middle = (length - self._hop) // 2
        for centre in range((0 if tail is None else middle) + step // 2, middle + self._hop, step):
            start = min(max(0, centre - size // 2), length - size)
            self._add(core[:, 0, start : start + size])
        return core

    def _add(self, waves: Tensor) -> None:
        """Add a window (S, T)."""
        config, power = self._config, waves.square().mean(-1)
        if power.max() <= config.silence_power:
            return
        voicing = measure_voicing(waves, self._rate)
        speech = (voicing.voiced >= config.min_voiced) & (voicing.voiced_active >= config.min_voiced_active)
        with torch.inference_mode():
            embeddings = self._encoder.embed(waves, self._rate)
        self._windows.append((embeddings, power, speech & (voicing.level_spread_db >= config.min_level_spread_db)))

    def speech(self) -> SpeechWindows:
        """Return the sources that are speech; each counts less, the louder another one is in the same window."""
        if not self._windows:
            return SpeechWindows(torch.zeros(0, 1), torch.zeros(0))
        config = self._config
        embeddings, power, speech = (torch.stack(values) for values in zip(*self._windows, strict=True))
        share, loud = power / power.amax(1, keepdim=True), power > config.speaking_share * power.max()
        chosen = speech & loud & (share > config.dominant_share)
        speakers = chosen.sum(1)
        spoken = (speakers > 0).sum().clamp_min(1)
        overlap, clarity = float((speakers > 1).sum() / spoken), float(spoken / loud.any(1).sum())
        return SpeechWindows(embeddings[chosen], config.hop_s * share[chosen].sqrt(), overlap, clarity)


def parts(frames: int | None, sample_rate: int, config: CountingConfig = COUNTING) -> Sequence[range]:
    """Choose the parts of a file from which its speakers are counted.

    Args:
        frames: Of the file; None if that is unknown.
        sample_rate: Hz.
        config: Thresholds.

    Returns:
        Ranges of frames in their order: all of a short file, the beginning if the length is unknown.
    """
    limit, size = round(config.max_seconds * sample_rate), round(config.part_seconds * sample_rate)
    if frames is None or frames <= limit:
        return [range(limit)]
    count = max(2, limit // size)
    starts = (round(i * (frames - size) / (count - 1)) for i in range(count))
    return [range(start, start + size) for start in starts]


def excerpt(blocks: Iterable[Samples], chosen: Sequence[range]) -> Iterator[Samples]:
    """Yield what lies within the ``chosen`` ranges of frames, from blocks (C, T); do not read on behind them."""
    at = 0
    for block in blocks:
        end = at + block.shape[1]
        for part in chosen:
            if max(at, part.start) < min(end, part.stop):
                yield block[:, max(0, part.start - at) : part.stop - at]
        at = end
        if at >= chosen[-1].stop:
            return
