"""Dual-path separators: masks on a learned encoding, by networks that alternate within and across chunks of it.

Three papers, one family: DPRNN (Luo, Chen & Yoshioka, ICASSP 2020, arXiv 1910.06379) uses BiLSTMs, SepFormer (Subakan
et al., ICASSP 2021, arXiv 2010.13154) transformers, and SFSRNet's separator (Rixen & Renz, AAAI 2022) estimates masks
after every block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.config import at_least, check, multiple
from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Model, check_separator, separator_spec
from audiosr_cli.models.layers import Decoder, Encoder, GlobalLayerNorm, TransformerLayer
from audiosr_cli.models.registry import register


@dataclass(frozen=True)
class DualPathConfig:
    """Configuration of a dual-path separator; the defaults are SepFormer's (sec. 3.1).

    Args:
        sample_rate: Sample rate in Hz.
        sources: Number of sources.
        filters: Filters of the encoder.
        kernel: Length of a filter in samples.
        stride: Samples from one frame of the encoding to the next.
        rectified: Whether a ReLU follows the encoder.
        width: Features of a frame between the blocks.
        bias: Whether the bottleneck has a bias.
        chunk: Frames of a chunk, even; half of them overlap with the next chunk.
        padding: Zeros on each side of the frames, in chunks: 0.5 as in SepFormer or 1 as in DPRNN.
        path: What processes a sequence: "transformer" or "lstm" (a BiLSTM).
        blocks: Number of blocks; each goes along every chunk, then across the chunks.
        layers: Transformer layers of a path.
        heads: Attention heads of a transformer layer.
        hidden: Feed-forward features of a transformer layer, or units per direction of a BiLSTM.
        mask: Activation of the masks.
        stages: Estimate masks after every block, without a gate (SFSRNet).
        context: Samples on each side of a window that only inform the output. Attention and BiLSTMs see all of it.
        core: Samples that one window answers for.
        overlap: Samples that two neighbouring windows have in common.
        name: Name of the model.

    Raises:
        UsageError: A value is impossible.
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
        at_least(self, 1, "filters", "stride", "width", "blocks", "layers", "hidden", "heads")
        at_least(self, self.stride, "kernel")
        at_least(self, 2, "chunk")
        check(self.chunk % 2 == 0, f"chunk = {self.chunk}: must be even")
        check(self.padding in (0.5, 1.0), f"padding = {self.padding:g}: must be 0.5 or 1")
        if self.path == "transformer":
            multiple(self.width, 2 * self.heads, "width", "2 · heads")
        check_separator(self)
        window = self.core + 2 * self.context
        check(window >= self.kernel, f"core + 2 · context = {window}: must be at least kernel = {self.kernel}")

    @property
    def spec(self) -> ModelSpec:
        """The contract with the engine."""
        return separator_spec(self)


def positional_encoding(length: int, width: int, like: Tensor) -> Tensor:
    """Return the sinusoidal encoding (length, width) of positions (Vaswani et al. 2017, sec. 3.5)."""
    rate = torch.exp(torch.arange(0, width, 2, device=like.device) * (-torch.log(torch.tensor(10000.0)) / width))
    angle = torch.arange(length, device=like.device).unsqueeze(1) * rate  # (length, width / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)


class TransformerPath(nn.Module):
    """Transformer layers after a sinusoidal positional encoding, and a final norm."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        c = config
        self.layers = nn.ModuleList(TransformerLayer(c.width, c.heads, c.hidden) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, H) → the same."""
        h = h + positional_encoding(h.shape[1], h.shape[2], h)
        for layer in self.layers:
            h = layer(h)
        return self.norm(h)


class RecurrentPath(nn.Module):
    """A BiLSTM, and a linear layer that returns to ``width`` features."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        self.rnn = nn.LSTM(config.width, config.hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * config.hidden, config.width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, H) → the same."""
        return self.linear(self.rnn(h)[0])


class DualPathBlock(nn.Module):
    """Along every chunk, then across the chunks; each path is normalised and added to its input (DPRNN, eq. 3-6)."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        path = TransformerPath if config.path == "transformer" else RecurrentPath
        self.intra, self.inter = path(config), path(config)
        self.intra_norm, self.inter_norm = GlobalLayerNorm(config.width), GlobalLayerNorm(config.width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, chunks, chunk, H) → the same."""
        h = h + self.intra_norm(self.intra(h.flatten(0, 1)).unflatten(0, h.shape[:2]))
        across = h.transpose(1, 2)  # (B, chunk, chunks, H)
        across = self.inter(across.flatten(0, 1)).unflatten(0, across.shape[:2])
        return h + self.inter_norm(across.transpose(1, 2))


def to_chunks(h: Tensor, size: int, padding: int) -> Tensor:
    """Cut frames into chunks that overlap by half, with ``padding`` zeros on each side.

    With half a chunk of padding, further zeros complete the last chunk, as in SepFormer; with a whole chunk, as in
    DPRNN, none are needed.

    Args:
        h: (B, L, H).
        size: Frames of a chunk.
        padding: Zeros on each side, in frames.

    Returns:
        (B, chunks, size, H).
    """
    gap = size - (padding + h.shape[1] % size) % size if padding < size else 0
    return F.pad(h, (0, 0, padding, padding + gap)).unfold(1, size, size // 2).transpose(2, 3)


def from_chunks(chunks: Tensor, length: int, padding: int) -> Tensor:
    """Overlap-add chunks (B, chunks, size, H) and remove the padding: (B, length, H)."""
    first, second = chunks.chunk(2, dim=2)  # (B, chunks, size / 2, H) each
    frames = F.pad(first, (0, 0, 0, 0, 0, 1)) + F.pad(second, (0, 0, 0, 0, 1, 0))
    return frames.flatten(1, 2)[:, padding : padding + length]


class GatedMask(nn.Module):
    """The head of SepFormer and DPRNN: PReLU, features of each source, overlap-add, a gate, masks."""

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
    """SFSRNet's head behind every block: a linear layer with ReLU, and overlap-add."""

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__()
        self.sources, self.spread = config.sources, nn.Linear(config.width, config.sources * config.filters)

    def forward(self, h: Tensor, length: int, padding: int) -> Tensor:
        """(B, chunks, chunk, H) → (B, S, length, filters)."""
        h = from_chunks(F.relu(self.spread(h)), length, padding)
        return h.unflatten(2, (self.sources, -1)).transpose(1, 2)


@register("dual_path", DualPathConfig)
class DualPath(Model):
    """The network.

    With ``stages``, in training, it returns the estimates of all blocks, (B, blocks * S, 1, T), for a loss over all of
    them (SFSRNet, "multi-loss"). Otherwise it returns those of the last block.

    Deviations: no dropout, and the positional encoding has any length (SpeechBrain's table ends at 2500 chunks).
    """

    config: DualPathConfig

    def __init__(self, config: DualPathConfig) -> None:
        super().__init__(config)
        c = config
        self.encoder, self.decoder = Encoder(c.filters, c.kernel, c.stride), Decoder(c.filters, c.kernel, c.stride)
        self.norm, self.bottleneck = GlobalLayerNorm(c.filters), nn.Linear(c.filters, c.width, bias=c.bias)
        self.blocks = nn.ModuleList(DualPathBlock(c) for _ in range(c.blocks))
        heads = [StageMask(c) for _ in range(c.blocks)] if c.stages else [GatedMask(c)]
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) → (B, S, 1, T - 2 * context); in training with ``stages`` (B, blocks * S, 1, T - 2 * context)."""
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
        estimates = self.decoder((mask * encoded.unsqueeze(1)).flatten(0, 1), x.shape[-1])  # (B * S, T)
        return estimates.unflatten(0, mask.shape[:2])[:, :, None, c.context : x.shape[-1] - c.context]
