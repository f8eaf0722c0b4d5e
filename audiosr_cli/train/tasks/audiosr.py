"""Training of AudioSR's networks one at a time: mel estimator, autoencoder, vocoder, diffusion (Liu et al. 2024)."""

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
from audiosr_cli.train.gan import AdversarialConfig
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks.base import VALID_SEED, Batch, ForwardFn, Losses, Recordings
from audiosr_cli.train.tasks.upsampling import Upsampling
from audiosr_cli.train.transfer import upload, upload_all

_VALID_BATCHES = 4
# Weight of a batch in the running mean of the latents' standard deviation.
_SPREAD_WEIGHT = 0.05

Stage = Literal["expected", "vae", "vocoder", "diffusion"]


@dataclass(frozen=True)
class AudioSRTraining(Upsampling):
    """One stage of an AudioSR; start from weights in which the stages before it are trained.

    Recordings are band-limited as for other upsamplers. ``loss_weights`` and ``discriminators`` are for the vocoder.

    Attributes:
        stage: The network that is trained; the others are frozen.
        kl_weight: Weight of the KL divergence of the latents, for the vae.
        condition_dropout: Share of items without condition, for classifier-free guidance of the diffusion.
    """

    stage: Stage = field(kw_only=True)
    kl_weight: float = 1e-3
    condition_dropout: float = 0.1
    metric: str = "-loss"

    def __post_init__(self) -> None:
        positive(self, "batch_size", "crop_s")
        within(self, 0, 1, "kl_weight", "condition_dropout")
        if not self.spec.uses_position:
            raise UsageError(f"[task] name = 'audiosr': needs [model] architecture = 'audiosr', not {self.spec.name}")

    @property
    def adversarial(self) -> AdversarialConfig | None:
        """The discriminators of the vocoder, if their losses have a weight."""
        return super().adversarial if self.stage == "vocoder" else None

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """Make a batch as an upsampler's, with ``step`` (B,), ``conditioned`` (B,) and a ``seed`` for the diffusion."""
        if ranks.world > 1:
            raise UsageError("[task] name = 'audiosr': can be trained in a single process only; run without torchrun")
        batch = super().batch(recordings, generator, ranks)
        count = len(batch["input"])
        step = STEPS * (torch.arange(count) + torch.rand(count, generator=generator)) / count
        conditioned = torch.rand(count, generator=generator) >= self.condition_dropout
        seed = torch.randint(2**31, (1,), generator=generator)
        return batch | upload_all({"step": step, "conditioned": conditioned}, ranks.device) | {"seed": seed}

    def losses(self, forward: ForwardFn, batch: Batch) -> Losses:
        """Compute the losses of the stage."""

        def run(objective: Callable[[AudioSR, Batch], Tensor]) -> Tensor:
            return forward(batch["input"], objective=lambda model: objective(model, batch))

        if self.stage == "vocoder":
            return super().losses(lambda *_, **__: run(_vocode), batch)
        terms = {}
        if self.stage == "expected":
            terms["mels"] = run(_expected_loss)
        elif self.stage == "diffusion":
            terms["velocity"] = run(_diffusion_loss)
        else:
            terms["mels"], divergence = run(_vae_loss)
            terms["kl"] = self.kl_weight * divergence
        return Losses(terms, batch["input"][:, 0], batch["target"])

    def score(self, model: Model, recordings: Recordings) -> float:
        """Compute the negative loss of four fixed validation batches."""
        device, generator = next(model.parameters()).device, torch.Generator().manual_seed(VALID_SEED)
        totals = []
        with torch.no_grad():
            for _ in range(_VALID_BATCHES):
                batch = self.batch(Recordings(recordings.valid, recordings.valid), generator, Ranks(device=device))
                totals.append(float(torch.stack(list(self.losses(model, batch).terms.values())).sum()))
        return -sum(totals) / len(totals)


def _mels(model: AudioSR, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Compute mels (B, L, M) of input and target, and a mask of those below the recording's bandwidth."""
    with torch.no_grad():
        mel, level = model.relative_mels(batch["input"][:, 0], batch["cutoff"])
        target, _ = model.relative_mels(batch["target"], batch["cutoff"], level)
    counts = torch.ones_like(mel[:, :1])
    if "band" in batch:
        counts = join_bands(counts, 0 * counts, model.first_mel(batch["band"]))
    return mel, target, counts


def _expected_loss(model: AudioSR, batch: Batch) -> Tensor:
    """Compute L1 of the estimated mels above the cutoff: ()."""
    mel, target, counts = _mels(model, batch)
    counts = model.join_at_cutoff(0 * counts, counts, batch["cutoff"]).expand_as(mel)
    error = (model.predict_mels(mel, batch["cutoff"]) - target).abs()
    return (error * counts).sum() / counts.sum().clamp_min(1)


def _vae_loss(model: AudioSR, batch: Batch) -> Tensor:
    """Compute L1 of the decoded mels and the KL divergence of the latents: (2,). Updates the latents' spread."""
    _, target, counts = _mels(model, batch)
    latent = model.vae.encode(target.unsqueeze(1))
    if model.training:
        model.spread.lerp_(latent.mean.detach().float().std(), _SPREAD_WEIGHT)
    decoded = model.vae.decode(latent.sample(_noise(latent.mean, batch)))[:, 0]
    error = ((decoded - target).abs() * counts).sum() / counts.expand_as(target).sum().clamp_min(1)
    return torch.stack([error, latent.kl_divergence()])


def _diffusion_loss(model: AudioSR, batch: Batch) -> Tensor:
    """Compute the mean squared error of the velocity (v-prediction, Salimans & Ho 2022): ()."""
    mel, target, _ = _mels(model, batch)
    with torch.no_grad():
        expected = model.predict_mels(mel, batch["cutoff"])
        both = model.vae.encode(torch.cat([target, expected]).unsqueeze(1)).mean / model.spread
        clean, condition = both.chunk(2)
        condition = condition * batch["conditioned"].view(-1, 1, 1, 1)
        noisy, velocity = add_noise(clean, _noise(clean, batch), batch["step"])
    estimate: Tensor = model.unet(noisy, condition, batch["step"])
    return (estimate.float() - velocity).square().mean()


def _vocode(model: AudioSR, batch: Batch) -> Tensor:
    """Synthesise waveforms (B, 1, 1, T) with highs from the target's mels."""
    _, target, _ = _mels(model, batch)
    return model.synthesise(batch["input"], batch["cutoff"], target)


def _noise(like: Tensor, batch: Batch) -> Tensor:
    """Draw standard normal noise from the batch's seed."""
    generator = torch.Generator().manual_seed(int(batch["seed"]))
    return upload(torch.randn(like.shape, generator=generator), like.device).to(like.dtype)
