"""Auxiliary heads for training: additional outputs of a network's feature maps with their losses; not exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.errors import UsageError
from audiosr_cli.models import Model
from audiosr_cli.models.layers import STFT
from audiosr_cli.models.spectral_unet import SpectralUNet, apply_masks, masks_of
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.clustering import dominant_sources, whitened_kmeans

if TYPE_CHECKING:
    from audiosr_cli.train.tasks import Batch, Losses, TrainingTask

# The heads' outputs by name.
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class ClusteringConfig:
    """An auxiliary deep-clustering loss on the last feature map; off if ``weight`` is 0.

    The loss (``clustering.whitened_kmeans``) is between 0 and the number of sources.

    Attributes:
        weight: Weight of the loss.
        embedding_dim: Size of the embedding of each time-frequency bin.
        threshold_db: Bins within this many dB of the loudest one count.
    """

    weight: float = 0.0
    embedding_dim: int = 20
    threshold_db: float = 40.0

    def __post_init__(self) -> None:
        within(self, 0, 1e6, "weight")
        within(self, 2, 1024, "embedding_dim")
        positive(self, "threshold_db")


class Heads(nn.Module):
    """Auxiliary heads on the feature maps of a separating SpectralUNet; every child module with weights is a head.

    ``clustering`` embeds the bins of the map at full resolution. ``half_resolution`` estimates the sources from the map
    one level below: its masks are for pairs of bins, and are repeated for the bins and frames that they cover.
    """

    def __init__(
        self,
        model: Model,
        clustering: ClusteringConfig,
        half_resolution_weight: float,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Create untrained heads.

        Args:
            model: The network whose feature maps they read.
            clustering: Options of the clustering head.
            half_resolution_weight: Weight of the loss at half resolution; 0 for no such head.
            loss: Loss of waveforms (B, S, T) at half resolution: (estimate, reference) → scalar or (B,).

        Raises:
            UsageError: If the model has no such feature maps.
        """
        super().__init__()
        options = (
            f"[task.clustering] weight = {clustering.weight:g}"
            if clustering.weight
            else f"[task] half_resolution_weight = {half_resolution_weight:g}"
        )
        if not isinstance(model, SpectralUNet):
            raise UsageError(f"{options}: auxiliary heads need [model] architecture = 'spectral_unet'")
        c = model.config
        if c.context:
            raise UsageError(f"{options}: needs [model.training] context = 0, not {c.context}")
        if half_resolution_weight and (not c.time_strides or c.fine % 2):
            raise UsageError(
                f"[task] half_resolution_weight = {half_resolution_weight:g}: needs at least two [model] widths and an "
                f"even [model] fine, not {c.fine}"
            )
        self.config, self.options, self.loss = c, clustering, loss
        self.half_resolution_weight = half_resolution_weight
        self.stft = STFT(c.n_fft, c.hop_length)
        self.clustering = nn.Conv2d(c.widths[0], clustering.embedding_dim, 1) if clustering.weight else None
        bins = (1, c.group) if c.rows > c.fine else (1,)  # bins in each kind of row of the map
        self.half_resolution = _mask_heads(c.widths[1], c.sources, bins) if half_resolution_weight else None

    def forward(self, x: Tensor, maps: list[Tensor]) -> Outputs:
        """Compute the heads' float32 outputs by name.

        Args:
            x: The network's input (B, 1, T).
            maps: The feature maps that ``SpectralUNet.forward`` collected.

        Returns:
            "clustering" (B, L, rows, K) embeddings of unit length, "half_resolution" (B, S, T) waveforms.
        """
        outputs, length = {}, x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):
            spectrum = self.stft.analyse(x[:, 0].float())  # (B, L, F) complex
        if self.clustering is not None:
            embeddings = self.clustering(maps[-1])[:, :, : spectrum.shape[1]].permute(0, 2, 3, 1)
            outputs["clustering"] = F.normalize(embeddings.float(), dim=-1, eps=1e-4)
        if self.half_resolution is not None:
            low, high = [*self.half_resolution, None][:2]
            masks = masks_of(maps[-2], self.config.fine // 2, low, high).repeat_interleave(2, 3)  # (B, 2S, L', F - 1)
            masks = masks.repeat_interleave(self.config.time_strides[0], 2)[:, :, : spectrum.shape[1]]
            outputs["half_resolution"] = apply_masks(masks, spectrum, self.stft, length)
        return outputs

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Compute the weighted losses by name, from the outputs of ``forward`` and the batch's ``target`` (B, S, T)."""
        terms, target = {}, batch["target"]
        if "clustering" in outputs:
            assignment, weight = dominant_sources(self._power(target), self.options.threshold_db)
            distance = whitened_kmeans(outputs["clustering"].flatten(1, 2), assignment, weight)
            terms["clustering"] = self.options.weight * distance.mean()
        if "half_resolution" in outputs:
            terms["half_resolution"] = (
                self.half_resolution_weight * self.loss(outputs["half_resolution"], target).mean()
            )
        return terms

    def _power(self, waves: Tensor) -> Tensor:
        """Compute the mean power of (B, S, T) in each row of the feature map: (B, S, L * rows)."""
        c = self.config
        power = torch.view_as_real(self.stft.analyse(waves)[..., :-1]).square().sum(-1)  # (B, S, L, F - 1)
        groups = power[..., c.fine :].reshape(*power.shape[:3], c.rows - c.fine, c.group).mean(-1)
        return torch.cat([power[..., : c.fine], groups], dim=-1).flatten(2)


class ModelWithHeads(nn.Module):
    """A network and its heads as one module, so that gradients of both are averaged over processes."""

    def __init__(self, model: Model, heads: Heads) -> None:
        super().__init__()
        self.model, self.heads = model, heads

    def forward(self, x: Tensor) -> tuple[Tensor, Outputs]:
        """(B, 1, T) → the network's float32 output, and the heads' outputs."""
        maps: list[Tensor] = []
        estimate = self.model(x, maps)
        return estimate.float(), self.heads(x, maps)


def losses_with_heads(
    task: TrainingTask, heads: Heads, forward: Callable[..., tuple[Tensor, Outputs]], batch: Batch
) -> Losses:
    """Compute the losses of the task and of the heads from one pass of a ``ModelWithHeads``."""
    outputs: Outputs = {}

    def estimate(*x: Tensor) -> Tensor:
        output, from_heads = forward(*x)
        outputs.update(from_heads)
        return output

    losses = task.losses(estimate, batch)
    return losses._replace(terms=losses.terms | heads.losses(outputs, batch))


def _mask_heads(width: int, sources: int, bins: tuple[int, ...]) -> nn.ModuleList:
    """Create one head for each kind of row; real parts of masks start at 1 / sources, so that no source is inverted."""
    heads = [nn.Conv2d(width, 2 * sources * count, 1) for count in bins]
    for head in heads:
        assert head.bias is not None
        nn.init.constant_(head.bias.view(sources, 2, -1)[:, 0], 1 / sources)
    return nn.ModuleList(heads)
