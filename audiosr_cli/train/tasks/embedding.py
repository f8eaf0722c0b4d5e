"""Training of speaker encoders: embeddings that are close for the same speaker and distant for different ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from audiosr_cli.dsp.metrics import equal_error_rate
from audiosr_cli.errors import TrainingError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train import augment
from audiosr_cli.train.augment import Augmentation
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.corpus import Corpus, RandomParameters
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import VALID_SEED, Batch, ForwardFn, Losses, PlainTask, Recordings
from audiosr_cli.train.transfer import upload

# Seconds of every validation speaker that are cut into crops, and crops embedded at once.
_EER_S, _EER_BATCH = 12.0, 64
# A crop counts if at least this share of its frames is above this share of its speaker's mean power (-25 dB).
_LEAST_ACTIVE, _ACTIVE_POWER = 0.5, 10**-2.5


@dataclass(frozen=True)
class Embedding(PlainTask):
    """Two crops of each of ``batch_size`` speakers, from one recording or from two.

    Each crop contains another speaker at a lower level, like the leakage of a separator.

    Attributes:
        batch_size: Speakers in the batch of each process.
        crop_s: Length of a crop in seconds.
        leakage_db: Range of the leakage below the speaker's level, in dB.
        similarity_scale: Factor of the cosine similarities in the loss.
        speed_perturbation: Speed and pitch are multiplied by a factor within 1 ± this, which adds voices.
        augmentation: What is done to each crop, so that microphones and rooms do not tell the speakers apart.
        two_recordings_prob: Probability that the second crop is from another recording of the speaker, if there is one.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    leakage_db: tuple[float, float] = (5.0, 30.0)
    similarity_scale: float = 12.0
    speed_perturbation: float = 0.1
    two_recordings_prob: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    metric: str = "-EER at 1 s (%)"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s", "similarity_scale")
        within(self, 2, 1e6, "batch_size")
        within(self, 0, 0.5, "speed_perturbation")
        within(self, 0, 1, "two_recordings_prob")

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """Make ``input`` (2 · speakers, 1, T): all first crops, then all second crops."""
        length, count = round(self.crop_s * self.spec.in_rate), self.batch_size
        if int((recordings.valid.speaker_probs > 0).sum()) < 2:
            raise TrainingError("[data] valid: needs recordings of at least two speakers")
        for _ in range(ranks.rank + 1):  # every process also draws the speakers of those before it
            params = self._draw(recordings.train, generator)
            share, choice = torch.rand(2, count, generator=generator)
            augmentations = augment.draw(self.augmentation, 2 * count, generator)
        low, high = self.leakage_db
        gain = upload(torch.pow(10, -(low + (high - low) * share) / 20), ranks.device)
        rendered = recordings.train.render(params, 2 * length, ranks.device)  # (1 or 2 recordings, speakers, 2T)
        waves = rendered[0]
        if len(rendered) > 1:
            other = (choice < self.two_recordings_prob) & (params["recording"][0] != params["recording"][1])
            second = torch.where(upload(other, ranks.device)[:, None], rendered[1, :, length:], waves[:, length:])
            waves = torch.cat([waves[:, :length], second], 1)
        waves = waves / waves.square().mean(1, keepdim=True).sqrt().clamp_min(1e-4)
        crops = torch.split(waves, length, 1)  # with different leakage, or it would identify the speaker
        mixed = [crop + gain[:, None] * crop.roll(shift, 0) for crop, shift in zip(crops, (1, -1), strict=True)]
        waves = torch.cat(mixed)
        if self.augmentation.active:
            waves = augment.render(waves, augmentations, self.spec.in_rate)
        return {"input": waves.unsqueeze(1)}

    def _draw(self, train: Corpus, generator: torch.Generator) -> RandomParameters:
        """Draw a crop of twice the length for each speaker, and a second one if other recordings are wanted."""
        length, rows = 2 * round(self.crop_s * self.spec.in_rate), 2 if self.two_recordings_prob else 1
        speakers = train.draw_speakers(1, self.batch_size, generator).repeat(rows, 1)
        return train.draw(rows, length, generator, self.batch_size, self.speed_perturbation, speakers)

    def losses(self, forward: ForwardFn, batch: Batch) -> Losses:
        """Compute the angular prototypical loss among this process's speakers (Chung et al. 2020)."""
        first, second = forward(batch["input"]).chunk(2)
        similarity = self.similarity_scale * first @ second.T
        own = torch.arange(len(first), device=first.device)
        loss = (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
        return Losses({"prototypes": loss}, first, second)

    def score(self, model: Model, recordings: Recordings) -> float:
        """Compute minus the equal error rate, in percent, of crops of 1 s among 12 s of each validation speaker.

        At least half of a crop must be speech.
        """
        return -self._equal_error_rate(model, recordings.valid, 1.0)

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:
        """Compute the equal error rates of crops of 2 and 4 s, in percent."""
        return {
            f"EER at {seconds:g} s (%)": self._equal_error_rate(model, recordings.valid, seconds)
            for seconds in (2.0, 4.0)
        }

    def _equal_error_rate(self, model: Model, valid: Corpus, seconds: float) -> float:
        rate, device = self.spec.in_rate, next(model.parameters()).device
        length, speakers = round(_EER_S * rate), int((valid.speaker_probs > 0).sum())
        params = valid.draw(1, length, torch.Generator().manual_seed(VALID_SEED), speakers)
        waves = valid.render(params, length, device)[0]  # (speakers, T)
        crops = waves.view(speakers, -1, round(seconds * rate))  # (speakers, crops, T)
        frames = crops.unfold(2, rate // 50, rate // 50).square().mean(3)  # power of 20 ms
        active = frames > _ACTIVE_POWER * waves.square().mean(1)[:, None, None]
        chosen = active.float().mean(2) >= _LEAST_ACTIVE  # (speakers, crops)
        speaker = torch.arange(speakers, device=device)[:, None].expand(chosen.shape)[chosen]
        with torch.no_grad():
            vectors = torch.cat([model(part.unsqueeze(1)) for part in torch.split(crops[chosen], _EER_BATCH)])
        return 100 * equal_error_rate(vectors, speaker)
