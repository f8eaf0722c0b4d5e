"""Dual-path separators: masks over a learned encoding, from chunks that are looked at inside and across in turns.

One family. DPRNN (Luo, Chen & Yoshioka, ICASSP 2020, arXiv 1910.06379) takes both ways with BiLSTMs, SepFormer
(Subakan et al., ICASSP 2021, arXiv 2010.13154) with transformers, and SFSRNet's separator (Rixen & Renz, AAAI 2022)
answers after every block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model, separator_spec
from audiosr_cli.models.layers import Decoder, Encoder, GlobalNorm, TransformerLayer
from audiosr_cli.models.registry import register


@dataclass(frozen=True)
class DualPathConfig:
    """Every number of a dual-path separator; the defaults are SepFormer's (sec. 3.1).

    ``filters``, ``kernel`` and ``stride`` are the encoder's, ``rectified`` puts a ReLU behind it. Frames of ``width``
    features are cut into chunks of ``chunk`` with one half overlapping, padded by ``chunk * padding`` on both sides.
    Each of ``blocks`` goes along every chunk, then across chunks: by ``layers`` transformer layers of ``heads`` heads
    and ``hidden`` feed-forward features, or one BiLSTM of ``hidden`` units a direction. ``mask`` is what bounds the
    masks. ``stages`` answers after every block (SFSRNet) and has no gate before the mask.
    ``context``, ``core`` and ``overlap`` are how it streams, in samples: attention and BiLSTMs hear the whole window.
    """

    sample_rate: int = 8000
    sources: int = 2
    filters: int = 256
    kernel: int = 16
    stride: int = 8
    rectified: bool = True
    width: int = 256
    bias: bool = False
    chunk: int = 250
    padding: float = 0.5
    path: Literal["transformer", "lstm"] = "transformer"
    blocks: int = 2
    layers: int = 8
    heads: int = 8
    hidden: int = 1024
    mask: Literal["relu", "sigmoid"] = "relu"
    stages: bool = False
    context: int = 8000
    core: int = 32000
    overlap: int = 8000
    name: str = "dual_path"

    def __post_init__(self) -> None:
        assert min(self.sources, self.filters, self.stride, self.width, self.blocks, self.layers, self.hidden) >= 1
        assert self.heads >= 1 and self.core + 2 * self.context >= self.kernel
        assert self.kernel >= self.stride and self.chunk >= 2 and self.chunk % 2 == 0 and self.context >= 0
        assert self.padding in (0.5, 1.0)
        assert self.path == "lstm" or self.width % (2 * self.heads) == 0

    @property
    def spec(self) -> ModelSpec:
        """The contract that follows."""
        return separator_spec(self)


def positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sinusoids (length, width) that tell where a frame stands (Vaswani et al. 2017, sec. 3.5)."""
    rate = torch.exp(torch.arange(0, width, 2, device=like.device) * (-torch.log(torch.tensor(10000.0)) / width))
    angle = torch.arange(length, device=like.device).unsqueeze(1) * rate  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)


class Transformer(nn.Module):
    """Layers between sinusoidal positions and a final norm."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        c = config
        self.layers = nn.ModuleList(TransformerLayer(c.width, c.heads, c.hidden) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, H) → the same."""
        h = h + positions(h.shape[1], h.shape[2], h)
        for layer in self.layers:
            h = layer(h)
        return self.norm(h)


class Recurrent(nn.Module):
    """A BiLSTM and the linear layer that brings its features back to ``width``."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        self.rnn = nn.LSTM(config.width, config.hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * config.hidden, config.width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, H) → the same."""
        return self.linear(self.rnn(h)[0])


class Block(nn.Module):
    """Along every chunk, then across chunks; each way normalised and added to what came in (DPRNN, eq. 3-6)."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        path = Transformer if config.path == "transformer" else Recurrent
        self.intra, self.inter = path(config), path(config)
        self.intra_norm, self.inter_norm = GlobalNorm(config.width), GlobalNorm(config.width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, chunks, chunk, H) → the same."""
        h = h + self.intra_norm(self.intra(h.flatten(0, 1)).unflatten(0, h.shape[:2]))
        across = h.transpose(1, 2)  # (B, chunk, chunks, H)
        across = self.inter(across.flatten(0, 1)).unflatten(0, across.shape[:2])
        return h + self.inter_norm(across.transpose(1, 2))


def to_chunks(h: Tensor, size: int, padding: int) -> Tensor:
    """(B, L, H) → (B, chunks, size, H), one half overlapping, between ``padding`` zeros on both sides.

    Padded by half a chunk, zeros complete the last one, as in SepFormer; a whole chunk, as in DPRNN, is enough.
    """
    gap = size - (padding + h.shape[1] % size) % size if padding < size else 0
    return F.pad(h, (0, 0, padding, padding + gap)).unfold(1, size, size // 2).transpose(2, 3)


def from_chunks(chunks: Tensor, length: int, padding: int) -> Tensor:
    """The sum of overlapping chunks (B, chunks, size, H) → (B, length, H); undoes the padding, not the sum."""
    first, second = chunks.chunk(2, dim=2)  # (B, chunks, size / 2, H) each
    whole = F.pad(first, (0, 0, 0, 0, 0, 1)) + F.pad(second, (0, 0, 0, 0, 1, 0))
    return whole.flatten(1, 2)[:, padding : padding + length]


class GatedMask(nn.Module):
    """PReLU, features for every source, overlap-add, a gate, masks: SepFormer's and DPRNN's head."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        c = config
        self.sources = c.sources
        self.prelu, self.spread = nn.PReLU(), nn.Linear(c.width, c.sources * c.width)
        self.out, self.gate = nn.Linear(c.width, c.width), nn.Linear(c.width, c.width)
        self.mask = nn.Linear(c.width, c.filters, bias=False)

    def forward(self, h: Tensor, length: int, padding: int) -> Tensor:
        """(B, chunks, chunk, H) → (B, S, length, filters), unbounded."""
        h = from_chunks(self.spread(self.prelu(h)), length, padding).unflatten(2, (self.sources, -1)).transpose(1, 2)
        return self.mask(torch.tanh(self.out(h)) * torch.sigmoid(self.gate(h)))


class StageMask(nn.Module):
    """A linear layer with ReLU, overlap-add, masks: what SFSRNet has behind every block."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        self.sources, self.spread = config.sources, nn.Linear(config.width, config.sources * config.filters)

    def forward(self, h: Tensor, length: int, padding: int) -> Tensor:
        """(B, chunks, chunk, H) → (B, S, length, filters)."""
        h = from_chunks(F.relu(self.spread(h)), length, padding)
        return h.unflatten(2, (self.sources, -1)).transpose(1, 2)


@register("dual_path", DualPathConfig)
class DualPath(Model):
    """The network. With ``stages``, in training, it returns the estimates of all blocks behind one another,
    (B, blocks * S, 1, T), for a loss over all of them (SFSRNet, "multi-loss"); otherwise the last one's.

    It has no dropout, and positions are computed for any length (SpeechBrain's table ends at 2500 chunks).
    """

    config: DualPathConfig

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__(config)
        c = config
        self.encoder, self.decoder = Encoder(c.filters, c.kernel, c.stride), Decoder(c.filters, c.kernel, c.stride)
        self.norm, self.bottleneck = GlobalNorm(c.filters), nn.Linear(c.filters, c.width, bias=c.bias)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.blocks))
        heads = [StageMask(c) for _ in range(c.blocks)] if c.stages else [GatedMask(c)]
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) → (B, S, 1, T - 2 * context), or of all stages in training."""
        c, padding = self.config, int(self.config.chunk * self.config.padding)
        encoded = self.encoder(x)  # (B, L, N)
        encoded = F.relu(encoded) if c.rectified else encoded
        h = to_chunks(self.bottleneck(self.norm(encoded)), c.chunk, padding)
        masks = []
        for i, block in enumerate(self.blocks):
            h = block(h)
            if c.stages and self.training:
                masks.append(self.heads[i](h, encoded.shape[1], padding))
        if not masks:
            masks = [self.heads[-1](h, encoded.shape[1], padding)]
        mask = torch.cat(masks, dim=1)  # (B, S or blocks * S, L, N)
        mask = torch.sigmoid(mask) if c.mask == "sigmoid" else F.relu(mask)
        made = self.decoder((mask * encoded.unsqueeze(1)).flatten(0, 1), x.shape[-1])  # (B * S, T)
        return made.unflatten(0, mask.shape[:2])[:, :, None, c.context : x.shape[-1] - c.context]
