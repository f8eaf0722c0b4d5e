"""Training of audio classifiers: speech, music and effects, band-limited, coded, noisy and on top of each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.contract import Kind
from audiosr_cli.dsp.spectra import low_pass
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train import augment, bandlimit
from audiosr_cli.train.augment import Augmentation
from audiosr_cli.train.bandlimit import Degradation
from audiosr_cli.train.checks import ascending, positive, within
from audiosr_cli.train.corpus import Corpus, RandomParameters
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.reverb import decaying_noise, reverberate
from audiosr_cli.train.tasks.base import Batch, ForwardFn, Losses, PlainTask, Recordings
from audiosr_cli.train.transfer import upload, upload_all

KINDS: tuple[str, ...] = get_args(Kind)

# Speed and pitch are multiplied by a factor within 1 ± this.
_SPEED_PERTURBATION = 0.1
# Range of the direct-to-reverberant ratio of reverberant crops in dB, and longest response in seconds.
_DIRECT_DB, _LONGEST_REVERB_S = (-12.0, 9.0), 1.5
# Cutoffs in Hz of the validation crops, and their relative roll-off.
_VALID_CUTOFFS_HZ, _VALID_ROLL_OFF = (2000.0, 4000.0), 0.09
# Seconds of every validation recording that are cut into crops, and crops classified at once.
_VALID_S, _VALID_BATCH = 30.0, 64
# A crop counts if its power is above this share of its recording's (-30 dB).
_AUDIBLE = 1e-3


@dataclass(frozen=True)
class Classification(PlainTask):
    """Crops of recordings, some of which are the background of others.

    A recording belongs to the class of which a folder is part of its path; the longest such folder counts.

    Attributes:
        batch_size: Crops in the batch of each process.
        crop_s: Length of a crop in seconds.
        speech: Folders of speech.
        music: Folders of music.
        effects: Folders of noise, ambience and other sounds.
        background_prob: Probability that another crop is added, at a lower level. The class stays that of the louder
            one; so music and effects that get speech as their background get none.
        background_db: Range of its level below the crop's, in dB, if the crop is speech, or both are of one class.
        other_background_db: The same for the background of music and effects.
        reverb_prob: Probability that a crop is reverberated, by decaying noise.
        t60_s: Range of its reverberation time in seconds.
        coded_prob: Probability that a crop comes from the recording's copy in ``[data.coded]``, where it has one.
        label_smoothing: Share of the target that is spread over all classes, so that probabilities stay below 1.
        augmentation: What is done to each crop.
        degradation: How it is band-limited.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    speech: tuple[str, ...]
    music: tuple[str, ...]
    effects: tuple[str, ...]
    background_prob: float = 0.5
    background_db: tuple[float, float] = (0.0, 25.0)
    other_background_db: tuple[float, float] = (15.0, 30.0)
    reverb_prob: float = 0.0
    t60_s: tuple[float, float] = (0.2, 3.0)
    coded_prob: float = 0.0
    label_smoothing: float = 0.05
    augmentation: Augmentation = field(default_factory=Augmentation)
    degradation: Degradation = field(default_factory=Degradation)
    metric: str = "mean recall (%)"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        within(self, 0, 1, "background_prob", "reverb_prob", "coded_prob", "label_smoothing")
        ascending(self, "background_db", "other_background_db", "t60_s")
        if self.t60_s[0] <= 0:
            raise UsageError(f"t60_s = {list(self.t60_s)}: must be above 0")
        for kind in KINDS:
            if not getattr(self, kind):
                raise UsageError(f"{kind} = []: must name at least one folder")

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """Make ``input`` (B, 1, T) and ``label`` (B,), the index of each crop's class."""
        length = round(self.crop_s * self.spec.in_rate)
        params = ranks.share(self._draw(recordings, self.batch_size * ranks.world, generator), self.batch_size)
        waves = self._reverberated(self._render(params, recordings, length, ranks.device), params)
        waves = waves + upload(self._gain(params), ranks.device)[:, None] * _unit(waves.roll(1, 0)) * _rms(waves)
        if self.augmentation.active:
            waves = augment.render(waves, params, self.spec.in_rate)
        waves = bandlimit.band_limit(waves, {key: params[key] for key in bandlimit.KEYS}, self.spec.in_rate)
        return {"input": waves.unsqueeze(1)} | upload_all({"label": params["label"]}, ranks.device)

    def _draw(self, recordings: Recordings, count: int, generator: torch.Generator) -> RandomParameters:
        """Draw the random parameters of ``count`` crops."""
        corpus, length = recordings.train, round(self.crop_s * self.spec.in_rate)
        params = corpus.draw(count, length, generator, speed=_SPEED_PERTURBATION)
        recording = params["recording"][:, 0]
        params["label"] = self.labels(corpus, recording)
        params |= bandlimit.draw(self.degradation, count, generator)
        params |= augment.draw(self.augmentation, count, generator)
        params["has_background"] = torch.rand(count, generator=generator) < self.background_prob
        params["background"] = torch.rand(count, generator=generator)
        params["coded"] = torch.rand(count, generator=generator) < self.coded_prob
        params["reverberant"] = torch.rand(count, generator=generator) < self.reverb_prob
        low, high = torch.tensor(self.t60_s).log()
        params["t60_s"] = torch.exp(low + (high - low) * torch.rand(count, generator=generator))
        params["direct_db"] = torch.empty(count).uniform_(*_DIRECT_DB, generator=generator)
        params["reverb_seed"] = torch.randint(1 << 62, (count,), generator=generator)
        if recordings.coded is not None:
            params["coded"] &= recordings.coded.bandwidth[recording] > 0
        return params

    def labels(self, corpus: Corpus, recordings: Tensor) -> Tensor:
        """Return the class of each of the ``recordings`` (N,) by its index. Raises TrainingError if one has none."""
        return torch.tensor([self._label(corpus.names[k]) for k in recordings.tolist()], dtype=torch.long)

    def _label(self, name: str) -> int:
        path = f"/{Path(name).as_posix()}"
        parts = {folder.strip("/"): i for i, kind in enumerate(KINDS) for folder in getattr(self, kind)}
        inside = [folder for folder in parts if f"/{folder}/" in path]
        if not inside:
            raise TrainingError(f"{name}: is in none of the folders of [task] speech, music and effects")
        return parts[max(inside, key=len)]

    def _render(self, params: RandomParameters, recordings: Recordings, length: int, device: torch.device) -> Tensor:
        """Render the crops of ``params``, or of the recordings' coded copies: (B, T)."""
        waves = recordings.train.render(params, length, device)[:, 0]
        chosen = params["coded"].nonzero()[:, 0]
        if recordings.coded is None or not len(chosen):
            return waves
        copies = recordings.coded.render({key: value[chosen] for key, value in params.items()}, length, device)
        return waves.index_copy(0, upload(chosen, device), copies[:, 0])

    def _reverberated(self, waves: Tensor, params: RandomParameters) -> Tensor:
        """Reverberate some of the crops (B, T)."""
        chosen = params["reverberant"].nonzero()[:, 0]
        if not len(chosen):
            return waves
        own = {key: params[key][chosen] for key in ("t60_s", "direct_db", "reverb_seed")}
        generator = torch.Generator().manual_seed(int(own["reverb_seed"][0]))
        length = min(waves.shape[1], round(_LONGEST_REVERB_S * self.spec.in_rate))
        responses = decaying_noise(own["t60_s"], own["direct_db"], length, self.spec.in_rate, generator)
        rows = upload(chosen, waves.device)
        return waves.index_copy(0, rows, reverberate(waves[rows], upload(responses, waves.device)))

    def _gain(self, params: RandomParameters) -> Tensor:
        """Return the level of each crop's background, the crop before it, relative to the crop's: (B,), 0 for none."""
        label, other = params["label"], params["label"].roll(1)
        lenient = (label == other) | (label == KINDS.index("speech"))
        own, foreign = (torch.tensor(limits) for limits in (self.background_db, self.other_background_db))
        low, high = torch.where(lenient[:, None], own, foreign).unbind(1)  # (B,) each
        level = torch.pow(10, -(low + (high - low) * params["background"]) / 20)
        allowed = params["has_background"] & ((label == other) | (other != KINDS.index("speech")))
        return torch.where(allowed, level, 0.0)

    def losses(self, forward: ForwardFn, batch: Batch) -> Losses:
        """Compute the cross entropy of the classes."""
        logits, label = forward(batch["input"]), batch["label"]
        loss = F.cross_entropy(logits, label, label_smoothing=self.label_smoothing)
        return Losses({"cross_entropy": loss}, logits, label)

    def score(self, model: Model, recordings: Recordings) -> float:
        """Compute the mean over the classes of how many validation crops (%) are recognised, at cutoffs of 2 and 4 kHz.

        Raises:
            TrainingError: If a class has no validation recordings.
        """
        recall = self._recall(model, recordings.valid)
        return sum(recall.values()) / len(recall)

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:
        """Compute how many validation crops of each class are recognised, in percent."""
        return {f"{kind} (%)": value for kind, value in self._recall(model, recordings.valid).items()}

    def _recall(self, model: Model, valid: Corpus) -> dict[str, float]:
        device = next(model.parameters()).device
        crops, label = self.valid_crops(valid)
        if missing := [kind for i, kind in enumerate(KINDS) if not (label == i).any()]:
            raise TrainingError(f"[data] valid: has no recordings of {missing[0]}")
        correct = torch.zeros(len(crops))
        for cutoff_hz in _VALID_CUTOFFS_HZ:
            for rows in torch.split(torch.arange(len(crops)), _VALID_BATCH):
                cutoff, roll_off = (torch.full((len(rows),), value) for value in (cutoff_hz, _VALID_ROLL_OFF))
                waves = low_pass(crops[rows], cutoff, roll_off, self.spec.in_rate).to(device)
                with torch.no_grad():
                    best = model(waves.unsqueeze(1)).argmax(1).cpu()
                correct[rows] += (best == label[rows]) / len(_VALID_CUTOFFS_HZ)
        return {kind: 100 * float(correct[label == i].mean()) for i, kind in enumerate(KINDS)}

    def valid_crops(self, valid: Corpus) -> tuple[Tensor, Tensor]:
        """Cut up to 30 s of every validation recording into crops; those that are nearly silent are left out.

        Returns:
            The crops (N, T), and the index of the class of each (N,).
        """
        length, crops, labels = round(self.crop_s * self.spec.in_rate), [], []
        for k, label in enumerate(self.labels(valid, torch.arange(len(valid.names))).tolist()):
            start, size = int(valid.starts[k]), min(int(valid.lengths[k]), round(_VALID_S * self.spec.in_rate))
            wave = valid.samples[start : start + size].cpu().float() / 32768
            parts = F.pad(wave, (0, max(0, length - size))).unfold(0, length, length)
            audible = parts.square().mean(1) > _AUDIBLE * wave.square().mean()
            crops.append(parts[audible])
            labels += [label] * len(crops[-1])
        return torch.cat(crops), torch.tensor(labels)


def _rms(waves: Tensor) -> Tensor:
    """Return the RMS of waveforms (B, T), (B, 1)."""
    return waves.square().mean(1, keepdim=True).sqrt()


def _unit(waves: Tensor) -> Tensor:
    """Return waveforms (B, T) with an RMS of 1; silence stays silent."""
    return waves / _rms(waves).clamp_min(1e-5)
