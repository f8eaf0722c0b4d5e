"""Windows of separated sources, of which those that hold the speech of one person tell the voices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from audiosr_cli.dsp.voicing import measure_voicing
from audiosr_cli.models.speaker_encoder import SpeakerEncoder
from audiosr_cli.streaming.counting import SpeechWindows
from audiosr_cli.streaming.counting_config import CountingConfig


class VoiceWindows:
    """Collects windows of a separator's sources from its cores, one of which begins every ``hop`` samples.

    The centres of the windows are in the middle of a core, as long as a hop; in the first core also before that.

    Args:
        speaker_encoder: Makes the embeddings; None for windows without.
        sample_rate: Of the sources, in Hz.
        hop: From the beginning of one core to that of the next, in samples.
        config: Thresholds.
        is_noise: Tells whether a range of the signal's samples holds hardly any speech; None if none does.
    """

    def __init__(
        self,
        speaker_encoder: SpeakerEncoder | None,
        sample_rate: int,
        hop: int,
        config: CountingConfig,
        is_noise: Callable[[range], bool] | None = None,
    ) -> None:
        self._encoder, self._rate, self._hop, self._config = speaker_encoder, sample_rate, hop, config
        self._is_noise, self._start = is_noise, 0  # sample at which the next core begins
        self._windows = list[tuple[Tensor, Tensor, Tensor]]()  # of S sources: embeddings, powers, whether it is speech

    def __call__(self, tail: Tensor | None, core: Tensor) -> Tensor:
        """Add the windows of ``core`` (S, 1, T), which is returned as it is."""
        config, length = self._config, core.shape[-1]
        size, step = (min(length, round(seconds * self._rate)) for seconds in (config.window_s, config.hop_s))
        middle = (length - self._hop) // 2
        for centre in range((0 if tail is None else middle) + step // 2, middle + self._hop, step):
            start = min(max(0, centre - size // 2), length - size)
            part = range(self._start + start, self._start + start + size)
            self._add(core[:, 0, start : start + size], self._is_noise is not None and self._is_noise(part))
        self._start += self._hop
        return core

    def _add(self, waves: Tensor, is_noise: bool) -> None:
        """Add a window (S, T), which holds no speech if it is noise."""
        config, power = self._config, waves.square().mean(-1)
        if power.max() <= config.silence_power:
            return
        voicing = measure_voicing(waves, self._rate)
        speech = (voicing.voiced >= config.min_voiced) & (voicing.voiced_active >= config.min_voiced_active)
        speech &= (voicing.level_spread_db >= config.min_level_spread_db) & (not is_noise)
        embeddings = waves.new_zeros(len(waves), 0)
        if self._encoder is not None:
            with torch.inference_mode():
                embeddings = self._encoder.embed(waves, self._rate)
        self._windows.append((embeddings, power, speech))

    def speech(self) -> SpeechWindows:
        """Return the sources that are speech; each counts less, the louder another one is in the same window."""
        if not self._windows:
            return SpeechWindows(torch.zeros(0, 1), torch.zeros(0))
        config = self._config
        embeddings, power, _ = self._stacked()
        chosen, loud = self._speaking(config.dominant_share)
        share, spoken = power / power.amax(1, keepdim=True), chosen.any(1).sum()
        clarity = float(spoken / loud.any(1).sum())
        return SpeechWindows(
            embeddings[chosen], config.hop_s * share[chosen].sqrt(), self.overlap(2, config.dominant_share), clarity
        )

    def overlap(self, speakers: int, least_share: float) -> float:
        """Measure how often several people speak at once.

        Args:
            speakers: So many at least.
            least_share: Power of a source that counts, relative to the loudest one in the same window.

        Returns:
            Share of the windows with speech; 0 without any.
        """
        if not self._windows:
            return 0.0
        at_once = self._speaking(least_share)[0].sum(1)
        return float((at_once >= speakers).sum() / (at_once > 0).sum().clamp_min(1))

    def _stacked(self) -> tuple[Tensor, Tensor, Tensor]:
        embeddings, power, speech = (torch.stack(values) for values in zip(*self._windows, strict=True))
        return embeddings, power, speech

    def _speaking(self, least_share: float) -> tuple[Tensor, Tensor]:
        """Return (N, S) for each source of each window, whether it is speech, and whether it is loud."""
        _, power, speech = self._stacked()
        loud = power > self._config.speaking_share * power.max()
        return speech & loud & (power > least_share * power.amax(1, keepdim=True)), loud
