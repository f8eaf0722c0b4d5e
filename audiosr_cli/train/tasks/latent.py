"""AudioSR's four networks, one at a time: what mels to expect, the autoencoder, the vocoder, the diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model
from audiosr_cli.models.audiosr import AudioSR, join_bands
from audiosr_cli.models.diffusion import STEPS, add_noise
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import VALID_SEED, Adversary, Batch, Forward, Losses, Recordings
from audiosr_cli.train.tasks.upsampling import Upsampling
from audiosr_cli.train.transfer import upload, upload_all

_VALID_BATCHES = 4
_EASE = 0.05  # how fast the spread of latents is followed

Part = Literal["expected", "vae", "vocoder", "diffusion"]


@dataclass(frozen=True)
class Latents(Upsampling):
    """One ``part`` of an AudioSR learns, the others stay as they are: start from weights that have those before it.

    Recordings lose their highs as for any upsampler; ``weights`` and ``critics`` are the vocoder's. ``divergence``
    weighs how far latents are from normal, ``dropped`` is the share of conditions that the diffusion is not told.
    """

    part: Part = field(kw_only=True)
    divergence: float = 1e-3
    dropped: float = 0.1
    figure: str = "-loss"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        within(self, 0, 1, "divergence", "dropped")
        if not self.spec.uses_position:
            raise UsageError(f"[task] name = 'audiosr': {self.spec.name} is no AudioSR")

    @property
    def adversary(self) -> Adversary | None:
        """The vocoder's, where its weights want one."""
        return super().adversary if self.part == "vocoder" else None

    @property
    def difficulty(self) -> None:
        """None."""
        return None

    def heads(self, model: Model) -> None:
        """None."""
        del model

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """As for an upsampler, with ``step`` (B,), ``told`` (B,) and a ``seed`` for the diffusion."""
        if ranks.world > 1:
            raise UsageError("[task] name = 'audiosr': one part learns, in one process")
        batch = super().batch(recordings, generator, ranks)
        count = len(batch["input"])
        step = STEPS * (torch.arange(count) + torch.rand(count, generator=generator)) / count
        told = torch.rand(count, generator=generator) >= self.dropped
        seed = torch.randint(2**31, (1,), generator=generator)
        return batch | upload_all({"step": step, "told": told}, ranks.device) | {"seed": seed}

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """Those of the part in training."""

        def learn(objective: Callable[[AudioSR, Batch], Tensor]) -> Tensor:
            return forward(batch["input"], objective=lambda model: objective(model, batch))

        if self.part == "vocoder":
            return super().losses(lambda *_, **__: learn(_voiced), batch)
        terms = {}
        if self.part == "expected":
            terms["mels"] = learn(_expected)
        elif self.part == "diffusion":
            terms["velocity"] = learn(_diffused)
        else:
            terms["mels"], divergence = learn(_autoencoded)
            terms["divergence"] = self.divergence * divergence
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
        mel, level = model.relative_mels(batch["input"][:, 0], batch["cutoff"])
        target, _ = model.relative_mels(batch["target"], batch["cutoff"], level)
    counts = torch.ones_like(mel[:, :1])
    if "band" in batch:
        counts = join_bands(counts, 0 * counts, model.first_mel(batch["band"]))
    return mel, target, counts


def _expected(model: AudioSR, batch: Batch) -> Tensor:
    """L1 of what is expected above the cutoff: ()."""
    mel, target, counts = _mels(model, batch)
    counts = model.join_at_cutoff(0 * counts, counts, batch["cutoff"]).expand_as(mel)
    error = (model.predict_mels(mel, batch["cutoff"]) - target).abs()
    return (error * counts).sum() / counts.sum().clamp_min(1)


def _autoencoded(model: AudioSR, batch: Batch) -> Tensor:
    """L1 of the mels that come back, and the divergence of their latents: (2,). Follows the latents' spread."""
    _, target, counts = _mels(model, batch)
    latent = model.vae.encode(target.unsqueeze(1))
    if model.training:
        model.spread.lerp_(latent.mean.detach().float().std(), _EASE)
    back = model.vae.decode(latent.sample(_noise(latent.mean, batch)))[:, 0]
    error = ((back - target).abs() * counts).sum() / counts.expand_as(target).sum().clamp_min(1)
    return torch.stack([error, latent.kl_divergence()])


def _diffused(model: AudioSR, batch: Batch) -> Tensor:
    """Mean squared error of velocities: ()."""
    mel, target, _ = _mels(model, batch)
    with torch.no_grad():
        expected = model.predict_mels(mel, batch["cutoff"])
        both = model.vae.encode(torch.cat([target, expected]).unsqueeze(1)).mean / model.spread
        clean, condition = both.chunk(2)
        condition = condition * batch["told"].view(-1, 1, 1, 1)
        noisy, velocity = add_noise(clean, _noise(clean, batch), batch["step"])
    made: Tensor = model.unet(noisy, condition, batch["step"])
    return (made.float() - velocity).square().mean()


def _voiced(model: AudioSR, batch: Batch) -> Tensor:
    """Waves (B, 1, 1, T) whose highs are those of the target's mels."""
    _, target, _ = _mels(model, batch)
    return model.synthesise(batch["input"], batch["cutoff"], target)


def _noise(like: Tensor, batch: Batch) -> Tensor:
    """Standard normal noise of the batch's seed."""
    generator = torch.Generator().manual_seed(int(batch["seed"]))
    return upload(torch.randn(like.shape, generator=generator), like.device).to(like.dtype)
