"""Training of one output for all speech and another one for the rest: noise and, if wanted, late reverberation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from audiosr_cli.dsp.metrics import si_sdr
from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train import mixing
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.losses import METRICS, pairwise_metric
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.acoustics import noise_and_rirs
from audiosr_cli.train.tasks.base import Batch, ForwardFn, Losses, PlainTask, Recordings
from audiosr_cli.train.tasks.valid_sets import clip_length, render_set, separate_mixtures

# The metric of each output is clamped here, in dB, so that clear speech does not outweigh a rest that is not silent.
_BEST_DB = 30.0


@dataclass(frozen=True)
class SpeechAndRest(PlainTask):
    """Mixtures of speakers and noise; the outputs have a fixed order: all speech, and what remains of the mixture.

    With ``--init``, a separator of speakers starts with the sum of its speakers as its first output.

    Attributes:
        batch_size: Mixtures in the batch of each process.
        crop_s: Length of a mixture in seconds.
        speakers: Speakers of a mixture.
        reflections_ms: In a room, speech holds the reflections up to this many milliseconds after the direct sound;
            the others are part of the rest. Speech keeps all of its reverberation by default.
        loss: One of losses.METRICS, averaged over the two outputs.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    speakers: int = 1
    reflections_ms: float = math.inf
    mixing: Mixing = field(default_factory=Mixing)
    loss: Literal["si_snr", "si_snr_and_level", "snr", "thresholded_si_snr", "thresholded_snr"] = "si_snr_and_level"
    metric: str = "SI-SDRi of speech in noise (dB)"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        within(self, 1, 8, "speakers")
        within(self, 0, math.inf, "reflections_ms")
        if self.spec.sources != 2:
            raise UsageError(
                f"[model] sources = {self.spec.sources}: must be 2 for the task speech-and-rest, which has two outputs"
            )
        if not self.mixing.noise_prob:
            raise UsageError(
                "[task.mixing] noise_prob = 0: must be above 0 for the task speech-and-rest, whose second output is "
                "the noise"
            )

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """Make mixtures (B, 1, T) and targets (B, 2, T'), without the network's context."""
        length, context, train = round(self.crop_s * self.spec.in_rate), self.spec.context, recordings.train
        noise, rirs = noise_and_rirs(self.mixing, recordings, self.spec)
        params = mixing.draw(
            self.mixing, train, self.speakers, self.batch_size * ranks.world, length, generator, noise, rirs
        )
        params = ranks.share(params, self.batch_size)
        mix, sources = mixing.render(params, train, length, ranks.device, noise, rirs, self.reflections_ms / 1000)
        speech = sources.sum(1)
        target = torch.stack([speech, mix - speech], 1)
        return {"input": mix.unsqueeze(1), "target": target[..., context : length - context]}

    def losses(self, forward: ForwardFn, batch: Batch) -> Losses:
        """Compute the negative metric of both outputs, in dB."""
        estimate, target = forward(batch["input"]).flatten(2), batch["target"]  # (B, 2, T) both
        metric = pairwise_metric(estimate, target, METRICS[self.loss]).diagonal(dim1=1, dim2=2)  # (B, 2)
        loss = -metric.clamp_max(_BEST_DB).mean()
        return Losses({self.loss: loss}, estimate.flatten(0, 1), target.flatten(0, 1))

    def score(self, model: Model, recordings: Recordings) -> float:
        """Compute the mean SI-SDR improvement over 24 fixed mixtures of one speaker with noise, 5.12 s each.

        Raises UsageError if there is no noise for validation.
        """
        return self._improvement("noise", model, recordings)

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:
        """Compute it at 0 dB SNR and in rooms, and the SI-SDR of the speech where there is nothing to remove."""
        mix, _ = self._mixtures("plain", model, recordings)
        return {
            "SI-SDRi at 0 dB SNR (dB)": self._improvement("loud noise", model, recordings),
            "SI-SDRi rooms (dB)": self._improvement("rooms", model, recordings),
            "SI-SDR without noise (dB)": float(si_sdr(separate_mixtures(model, mix)[:, 0], mix).mean()),
        }

    def _improvement(self, name: str, model: Model, recordings: Recordings) -> float:
        mix, speech = self._mixtures(name, model, recordings)
        estimate = separate_mixtures(model, mix)[:, 0]
        return float((si_sdr(estimate, speech) - si_sdr(mix, speech)).mean())

    def _mixtures(self, name: str, model: Model, recordings: Recordings) -> tuple[Tensor, Tensor]:
        """Render the mixtures (B, T) of a fixed set, and the speech of one speaker in each (B, T)."""
        if recordings.valid_noise is None:
            raise UsageError("[data] valid_noise: is missing; the task speech-and-rest is scored on speech in noise")
        device, length, noise = next(model.parameters()).device, clip_length(model.spec), recordings.valid_noise
        mix, sources = render_set(
            name, recordings.valid, 1, length, device, noise, reflections_s=self.reflections_ms / 1000
        )
        return mix, sources[:, 0]
