"""AudioSR's four networks, one at a time: what mels to expect, the autoencoder, the vocoder, the diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.models.audiosr import AudioSR
from audiosr_cli.models.diffusion import STEPS, add_noise
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.degrade import Degradation
from audiosr_cli.train.discriminators import Critics
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import VALID_SEED, Adversary, Batch, Forward, Losses, Recordings
from audiosr_cli.train.tasks.upsampling import Upsampling, Weights

_VALID_BATCHES = 4
_EASE = 0.05  # how fast the spread of latents is followed

Part = Literal["expected", "vae", "vocoder", "diffusion"]


@dataclass(frozen=True)
class Latents:
    """One ``part`` of an AudioSR learns, the others stay as they are: start from weights that have those before it.

    Recordings lose their highs as in ``degradation``; ``weights`` and ``critics`` are the vocoder's. ``divergence``
    weighs how far latents are from normal, ``dropped`` is the share of conditions that the diffusion is not told.
    """

    spec: ModelSpec
    batch_size: int
    crop_s: float
    part: Part
    degradation: Degradation = field(default_factory=Degradation)
    weights: Weights = field(default_factory=Weights)
    critics: Critics = field(default_factory=Critics)
    divergence: float = 1e-3
    dropped: float = 0.1
    figure: str = "-loss"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        within(self, 0, 1, "divergence", "dropped")
        if not self.spec.placed:
            raise UsageError(f"[task] name = 'audiosr': {self.spec.name} is no AudioSR")

    @cached_property
    def waves(self) -> Upsampling:
        """Recordings and what is left of them; the vocoder's losses."""
        spec = replace(self.spec, placed=False)
        return Upsampling(spec, self.batch_size, self.crop_s, self.degradation, self.weights, self.critics)

    @property
    def adversary(self) -> Adversary | None:
        """The vocoder's, where its weights want one."""
        return self.waves.adversary if self.part == "vocoder" else None

    @property
    def partner(self) -> Model | None:
        """None."""
        return None

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """As for an upsampler, with ``step`` (B,), ``told`` (B,) and a ``seed`` for the diffusion."""
        if ranks.world > 1:
            raise UsageError("[task] name = 'audiosr': one part learns, in one process")
        batch = self.waves.batch(recordings, generator, ranks)
        count = len(batch["input"])
        step = STEPS * (torch.arange(count) + torch.rand(count, generator=generator)) / count
        told = torch.rand(count, generator=generator) >= self.dropped
        seed = torch.randint(2**31, (1,), generator=generator)
        return batch | {"step": step.to(ranks.device), "told": told.to(ranks.device), "seed": seed}

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """Those of the part in training."""
        if self.part == "vocoder":

            def voiced(x: Tensor, edge: Tensor) -> Tensor:
                return forward(x, None, lambda model: _voiced(model, x, edge, batch["target"]))

            return self.waves.losses(voiced, batch)
        lesson: Callable[[AudioSR, Batch], Tensor]
        names, lesson = {
            "expected": (("mels",), _expected),
            "vae": (("mels", "divergence"), _autoencoded),
            "diffusion": (("velocity",), _diffused),
        }[self.part]
        found = forward(batch["input"], None, lambda model: lesson(model, batch))
        weights = {"divergence": self.divergence}
        terms = {name: weights.get(name, 1.0) * value for name, value in zip(names, found, strict=True)}
        return Losses(terms, batch["input"][:, 0], batch["target"])

    def score(self, model: Model, valid: Corpus) -> float:
        """The negative loss of four fixed batches of the valid split."""
        device, generator = next(model.parameters()).device, torch.Generator().manual_seed(VALID_SEED)
        found = []
        with torch.no_grad():
            for _ in range(_VALID_BATCHES):
                batch = self.batch(Recordings(valid, valid), generator, Ranks(device=device))
                found.append(float(torch.stack(list(self.losses(model, batch).terms.values())).sum()))
        return -sum(found) / len(found)


def _mels(model: AudioSR, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Mels (B, L, M) of the input and the target, and which of them count: those below the recording's band."""
    with torch.no_grad():
        mel, level = model.hear(batch["input"][:, 0], batch["edge"])
        target, _ = model.hear(batch["target"], batch["edge"], level)
    counts = torch.ones_like(mel[:, :1])
    if "band" in batch:
        counts = (torch.arange(mel.shape[2], device=mel.device) < model.first_mel(batch["band"]).unsqueeze(1)).float()
        counts = counts.unsqueeze(1)
    return mel, target, counts


def _expected(model: AudioSR, batch: Batch) -> Tensor:
    """L1 of what is expected above the edge: (1,)."""
    mel, target, counts = _mels(model, batch)
    counts = model.join(0 * counts, counts, batch["edge"]).expand_as(mel)
    error = (model.expect(mel, batch["edge"]) - target).abs()
    return ((error * counts).sum() / counts.sum().clamp_min(1)).unsqueeze(0)


def _autoencoded(model: AudioSR, batch: Batch) -> Tensor:
    """L1 of the mels that come back, and the divergence of their latents: (2,). Follows the latents' spread."""
    _, target, counts = _mels(model, batch)
    latent = model.vae.encode(target.unsqueeze(1))
    if model.training:
        now = latent.mean.detach().float().std()
        model.spread.lerp_(now, _EASE)
    noise = _noise(latent.mean, batch)
    back = model.vae.decode(latent.sample(noise))[:, 0]
    error = ((back - target).abs() * counts).sum() / counts.expand_as(target).sum().clamp_min(1)
    return torch.stack([error, latent.divergence()])


def _diffused(model: AudioSR, batch: Batch) -> Tensor:
    """Mean squared error of velocities: (1,)."""
    mel, target, _ = _mels(model, batch)
    with torch.no_grad():
        expected = model.expect(mel, batch["edge"])
        both = model.vae.encode(torch.cat([target, expected]).unsqueeze(1)).mean / model.spread
        clean, condition = both.chunk(2)
        condition = condition * batch["told"].view(-1, 1, 1, 1)
        noisy, velocity = add_noise(clean, _noise(clean, batch), batch["step"])
    made: Tensor = model.unet(noisy, condition, batch["step"])
    return (made.float() - velocity).square().mean().unsqueeze(0)


def _voiced(model: AudioSR, x: Tensor, edge: Tensor, target: Tensor) -> Tensor:
    """Waves whose highs are those of the target's mels."""
    with torch.no_grad():
        _, level = model.hear(x[:, 0], edge)
        mel, _ = model.hear(target, edge, level)
    return model.voice(x, edge, mel)


def _noise(like: Tensor, batch: Batch) -> Tensor:
    """Standard normal noise of the batch's seed."""
    generator = torch.Generator().manual_seed(int(batch["seed"]))
    return torch.randn(like.shape, generator=generator).to(like.device, like.dtype)
