"""Heads that only training has: further outputs of a network's feature maps, each with a loss; never exported."""

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
    from audiosr_cli.train.tasks import Batch, Losses, Task

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Clustering:
    """A deep-clustering loss beside that of the waveforms; off while ``weight`` is 0.

    Each bin of the last feature map gets an embedding of ``features`` numbers; bins within ``within_db`` of the loudest
    count. The loss is that of ``clustering.whitened_kmeans``, between 0 and the number of sources, times ``weight``.
    """

    weight: float = 0.0
    features: int = 20
    within_db: float = 40.0

    def __post_init__(self) -> None:
        within(self, 0, 1e6, "weight")
        within(self, 2, 1024, "features")
        positive(self, "within_db")


class Heads(nn.Module):
    """Heads on the feature maps of a SpectralUNet that separates; every child module with weights is a head.

    ``clustering`` embeds the bins of the map at full resolution. ``half_resolution`` answers from the map one level
    below with masks for pairs of bins, spread over the bins and frames that they stand for.
    """

    def __init__(
        self,
        model: Model,
        clustering: Clustering,
        half_resolution_weight: float,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Make fresh heads.

        Args:
            model: whose maps they see.
            clustering: the options of the head of that name.
            half_resolution_weight: what the loss at half resolution counts; 0 for no such head.
            loss: of waveforms (B, S, T), for the answer at half resolution: (estimate, reference) → scalar or (B,).

        Raises:
            UsageError: Where this model has no such maps.
        """
        super().__init__()
        options = (
            f"[task.clustering] weight = {clustering.weight:g}"
            if clustering.weight
            else f"[task] half_resolution_weight = {half_resolution_weight:g}"
        )
        if not isinstance(model, SpectralUNet):
            raise UsageError(f"{options}: only the architecture spectral_unet has heads for training")
        c = model.config
        if c.context:
            raise UsageError(f"{options}: needs [model.training] context = 0, not {c.context}")
        if half_resolution_weight and (not c.time_strides or c.fine % 2):
            raise UsageError(
                f"[task] half_resolution_weight = {half_resolution_weight:g}: needs two widths or more and an even "
                f"number of fine bins, not {c.fine}"
            )
        self.config, self.options, self.loss = c, clustering, loss
        self.half_resolution_weight = half_resolution_weight
        self.stft = STFT(c.n_fft, c.hop_length)
        self.clustering = nn.Conv2d(c.widths[0], clustering.features, 1) if clustering.weight else None
        bins = (1, c.group) if c.rows > c.fine else (1,)  # that a row of the map stands for
        self.half_resolution = _mask_heads(c.widths[1], c.sources, bins) if half_resolution_weight else None

    def forward(self, x: Tensor, maps: list[Tensor]) -> Outputs:
        """The heads' float32 outputs, by name.

        Args:
            x: (B, 1, T), what the network got.
            maps: what ``SpectralUNet.forward`` gathered for it.

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
        """The heads' weighted losses by name, from what ``forward`` returned and the batch's ``target`` (B, S, T)."""
        terms, target = {}, batch["target"]
        if "clustering" in outputs:
            assignment, weight = dominant_sources(self._power(target), self.options.within_db)
            distance = whitened_kmeans(outputs["clustering"].flatten(1, 2), assignment, weight)
            terms["clustering"] = self.options.weight * distance.mean()
        if "half_resolution" in outputs:
            terms["half_resolution"] = (
                self.half_resolution_weight * self.loss(outputs["half_resolution"], target).mean()
            )
        return terms

    def _power(self, waves: Tensor) -> Tensor:
        """Mean power of (B, S, T) in each row of the map: (B, S, L * rows)."""
        c = self.config
        power = torch.view_as_real(self.stft.analyse(waves)[..., :-1]).square().sum(-1)  # (B, S, L, F - 1)
        groups = power[..., c.fine :].reshape(*power.shape[:3], c.rows - c.fine, c.group).mean(-1)
        return torch.cat([power[..., : c.fine], groups], dim=-1).flatten(2)


class Assisted(nn.Module):
    """A network and its heads as one module, so that gradients of both are averaged over processes."""

    def __init__(self, model: Model, heads: Heads) -> None:
        super().__init__()
        self.model, self.heads = model, heads

    def forward(self, x: Tensor) -> tuple[Tensor, Outputs]:
        """(B, 1, T) → the network's float32 output and the heads'."""
        maps: list[Tensor] = []
        estimate = self.model(x, maps)
        return estimate.float(), self.heads(x, maps)


def losses_with_heads(task: Task, heads: Heads, forward: Callable[..., tuple[Tensor, Outputs]], batch: Batch) -> Losses:
    """The task's losses for ``batch`` and those of the heads, from one pass of an ``Assisted`` network."""
    outputs: Outputs = {}

    def estimate(*x: Tensor) -> Tensor:
        output, more = forward(*x)
        outputs.update(more)
        return output

    losses = task.losses(estimate, batch)
    return losses._replace(terms=losses.terms | heads.losses(outputs, batch))


def _mask_heads(width: int, sources: int, bins: tuple[int, ...]) -> nn.ModuleList:
    """A head for each kind of row; real parts start at equal shares, so that no source is upside down."""
    heads = [nn.Conv2d(width, 2 * sources * count, 1) for count in bins]
    for head in heads:
        assert head.bias is not None
        nn.init.constant_(head.bias.view(sources, 2, -1)[:, 0], 1 / sources)
    return nn.ModuleList(heads)
