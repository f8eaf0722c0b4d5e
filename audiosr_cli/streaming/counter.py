"""Count the speakers of a stream: speech → separator → windows in which somebody speaks → embeddings → clusters."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import torch

from audiosr_cli.audio.resample import Resampler
from audiosr_cli.dsp.hum import InterferenceFilter
from audiosr_cli.models import Model
from audiosr_cli.models.runner import ModelRunner
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.runtime.threads import thread_pool
from audiosr_cli.streaming.counting import SpeakerCount, SpeechWindows, count_speakers
from audiosr_cli.streaming.counting_config import COUNTING, CountingConfig
from audiosr_cli.streaming.options import Options, Samples
from audiosr_cli.streaming.stages import Stage
from audiosr_cli.streaming.voice_windows import VoiceWindows
from audiosr_cli.streaming.windows import Engine


class SpeakerCounter:
    """Counts the speakers of recordings.

    A separator splits those who speak at the same time, so that windows of its tracks hold one voice each. It need not
    have as many tracks as there are speakers: mostly, at most two people speak at once.

    Args:
        separator: Of one channel; its tracks tell the voices.
        speaker_encoder: Distinguishes the voices.
        config: Thresholds.
        denoiser: Separates speech from the rest, before everything else. None leaves noise in.
        separator3: Of one channel and three tracks. Where two people speak at once most of the time, it decides
            whether there is a third one. None leaves that to the voices.
    """

    def __init__(
        self,
        separator: Model,
        speaker_encoder: SpeakerEncoder,
        config: CountingConfig = COUNTING,
        denoiser: Model | None = None,
        separator3: Model | None = None,
    ) -> None:
        self.separator, self.speaker_encoder, self.config = separator, speaker_encoder, config
        self.denoiser, self.separator3 = denoiser, separator3
        assert all(model.spec.channels == 1 for model in self.models[:-1])
        assert denoiser is None or denoiser.spec.rest

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that decide."""
        separators = (model for model in (self.denoiser, self.separator, self.separator3) if model is not None)
        return *separators, self.speaker_encoder

    def count(self, blocks: Iterable[Samples], sample_rate: int, options: Options) -> SpeakerCount:
        """Count the speakers of a signal.

        Args:
            blocks: (C, T), in all some minutes: their mean over the channels is kept in memory. Samples that are not
                finite count as zero.
            sample_rate: Hz.
            options: How recordings are processed.

        Returns:
            The number of speakers.
        """
        started = time.monotonic()
        windows, analysed_s = self.windows(blocks, sample_rate, options)
        count = count_speakers(windows, self.config)
        return replace(count, analysed_s=analysed_s, elapsed_s=time.monotonic() - started)

    def windows(self, blocks: Iterable[Samples], sample_rate: int, options: Options) -> tuple[SpeechWindows, float]:
        """Find the windows of a signal from which `count` counts, with its arguments.

        Returns:
            The windows, and the seconds of the signal.
        """
        config, encoder = self.config, self.speaker_encoder
        with thread_pool(options.threads) as executor:
            mixture, speech, analysed_s = self._denoise(blocks, sample_rate, options, executor)
            windows = self._collect(self.separator, mixture, speech, options, executor, encoder).speech()
            if self.separator3 is not None and windows.overlap >= config.min_overlap:
                of_three = self._collect(self.separator3, mixture, speech, options, executor)
                windows = replace(windows, overlap3=of_three.overlap(3, config.third_share))
        return windows, analysed_s

    def _denoise(
        self, blocks: Iterable[Samples], sample_rate: int, options: Options, executor: Executor
    ) -> tuple[Samples, Samples, float]:
        """Return the mean channel of a signal and its speech, (1, T) at the separator's rate, and the seconds."""
        rate, frames = self.separator.spec.in_rate, 0
        before, hum = Resampler(sample_rate, rate, 1), InterferenceFilter(rate, 1)
        denoising = Stage(self.denoiser, rate, rate, 1, replace(options, hum="keep"), executor=executor)

        def mono() -> Iterator[Samples]:
            nonlocal frames
            for block in blocks:
                frames += block.shape[1]
                mean = np.nan_to_num(options.pick_channels(block), posinf=0, neginf=0).mean(0, keepdims=True)
                yield hum.push(before.push(mean))[0]
            yield hum.push(before.push(np.zeros((1, 0), np.float32), last=True), last=True)[0]

        pairs = [(block, denoising.push(block)) for block in mono()]
        rest = np.zeros((1, 0), np.float32)
        pairs.append((rest, denoising.push(rest, last=True)))
        mixture, speech = (np.concatenate(signal, axis=1) for signal in zip(*pairs, strict=True))
        return mixture, speech, frames / sample_rate

    def _collect(
        self,
        separator: Model,
        mixture: Samples,
        speech: Samples,
        options: Options,
        executor: Executor,
        speaker_encoder: SpeakerEncoder | None = None,
    ) -> VoiceWindows:
        """Return the windows of what a separator makes of the speech; with embeddings if there is an encoder."""
        spec, parallel = separator.spec, options.threads if separator.device.type == "cpu" else 0
        assert spec.in_rate == spec.out_rate == self.separator.spec.in_rate

        def is_noise(part: range) -> bool:
            before, after = (np.square(signal[0, part.start : part.stop]).sum() for signal in (mixture, speech))
            return bool(after < self.config.min_speech_share * before)

        windows = VoiceWindows(speaker_encoder, spec.in_rate, spec.hop, self.config, is_noise)
        runner = ModelRunner(separator, options.batch, options.bf16)
        engine = Engine(spec, runner, 1, options.batch, windows, executor if parallel else None, parallel)
        engine.push(torch.from_numpy(speech))
        engine.flush()
        return windows
