"""SpectralUNet: complex masks from a 2-D U-Net over the spectrogram, with a sequence model at its bottleneck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.models.base import Model
from audiosr_cli.models.wave_u_net import ChannelScale
from audiosr_cli.windows import ModelSpec


@dataclass(frozen=True)
class SpectralUNetConfig:
    sample_rate: int = 16000
    sources: int = 2
    n_fft: int = 512
    hop_length: int = 256
    fine: int = 128
    group: int = 4
    widths: tuple[int, ...] = (32, 64, 96, 128)
    time_strides: tuple[int, ...] = (1, 2, 2)
    blocks: int = 1
    sequence: Literal["none", "attention", "lstm"] = "attention"
    hidden: int = 384
    layers: int = 2
    heads: int = 6
    tdf: int = 0
    slope: float = 0.1
    consistent: bool = True
    context: int = 16384
    core: int = 65536
    overlap: int = 8192
    name: str = "spectral_unet"

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(
            name=self.name,
            task="separate",
            in_rate=self.sample_rate,
            ratio=1,
            sources=self.sources,
            channels=1,
            window=self.core + 2 * self.context,
            context=self.context,
            hop=self.core - self.overlap,
        )


def conv2(i: int, o: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    pad = tuple((k - 1) // 2 if s == 1 or k % 2 else 0 for k, s in zip(kernel, stride))
    layer = nn.Conv2d(i, o, kernel, stride, pad, bias=False)
    nn.init.kaiming_normal_(layer.weight, a=0.1)
    return layer.to(memory_format=torch.channels_last)


class Block(nn.Module):
    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.first, self.second = (conv2(width, width, (3, 3)) for _ in range(2))
        self.scale1, self.scale2 = ChannelScale(width), ChannelScale(width)
        nn.init.constant_(self.scale2.gain, 0.3)
        self.slope = slope

    def forward(self, h: Tensor) -> Tensor:
        y = F.leaky_relu(self.scale1(self.first(h)), self.slope)
        return F.leaky_relu(h + self.scale2(self.second(y)), self.slope)


class FrequencyMix(nn.Module):
    """Dense over frequency, shared by channels (TDF of Choi et al. 2020)."""

    def __init__(self, width: int, bins: int, squeeze: int, slope: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(bins, bins // squeeze, bias=False), nn.Linear(bins // squeeze, bins, bias=False)
        self.scale1, self.scale2 = ChannelScale(width), ChannelScale(width)
        nn.init.constant_(self.scale2.gain, 0.3)
        self.slope = slope

    def forward(self, h: Tensor) -> Tensor:
        y = F.leaky_relu(self.scale1(self.down(h)), self.slope)
        return h + self.scale2(self.up(y))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.wide, self.narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:  # (B, L, H)
        b, l, w = h.shape
        q, k, v = self.qkv(self.norm1(h)).view(b, l, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q), rotate(k)
        made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, l, w)
        h = h + self.out(made)
        return h + self.narrow(F.gelu(self.wide(self.norm2(h))))


def rotate(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    freq = 1000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * freq
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Sequence(nn.Module):
    def __init__(self, features: int, c: SpectralUNetConfig) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(features, c.hidden, bias=False), nn.Linear(c.hidden, features, bias=False)
        self.kind = c.sequence
        if c.sequence == "attention":
            self.body = nn.Sequential(*(Attention(c.hidden, c.heads) for _ in range(c.layers)))
        else:
            self.body = nn.LSTM(c.hidden, c.hidden // 2, c.layers, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(c.hidden, bias=False)

    def forward(self, h: Tensor) -> Tensor:  # (B, C, L, F)
        y = self.enter(h.permute(0, 2, 3, 1).flatten(2))
        y = self.body(y) if self.kind == "attention" else y + self.body(y)[0]
        y = self.leave(self.norm(y))
        return h + y.unflatten(2, (h.shape[3], h.shape[1])).permute(0, 3, 1, 2).to(h.dtype)


class SpectralUNet(Model):
    config: SpectralUNetConfig

    def __init__(self, config: SpectralUNetConfig) -> None:
        super().__init__(config)
        c = config
        w = c.widths
        self.register_buffer("window", torch.hann_window(c.n_fft).sqrt(), persistent=False)
        self.bins = c.n_fft // 2
        self.coarse = (self.bins - c.fine) // c.group
        self.enter = conv2(3, w[0], (3, 3))
        self.enter_high = conv2(3, w[0], (3, c.group), (1, c.group)) if self.coarse else None
        self.enter_scale = ChannelScale(w[0])
        self.down, self.encode, self.up, self.decode = (nn.ModuleList() for _ in range(4))
        self.down_scale, self.up_scale = nn.ModuleList(), nn.ModuleList()
        bins = c.fine + self.coarse

        def body(width: int, bins: int) -> nn.Module:
            layers = [Block(width, c.slope) for _ in range(c.blocks)]
            if c.tdf:
                layers.append(FrequencyMix(width, bins, c.tdf, c.slope))
            return nn.Sequential(*layers)

        for i, stride in enumerate(c.time_strides):
            self.encode.append(body(w[i], bins))
            self.decode.insert(0, body(w[i], bins))
            self.down.append(conv2(w[i], w[i + 1], (stride, 2), (stride, 2)))
            self.down_scale.append(ChannelScale(w[i + 1]))
            self.up.insert(0, nn.ConvTranspose2d(w[i + 1], w[i], (stride, 2), (stride, 2), bias=False))
            self.up_scale.insert(0, ChannelScale(w[i]))
            bins //= 2
        self.middle = nn.ModuleList([body(w[-1], bins), body(w[-1], bins)])
        self.sequence = Sequence(w[-1] * bins, c) if c.sequence != "none" else None
        self.head = nn.Conv2d(w[0], 2 * c.sources, 1)
        self.head_high = nn.Conv2d(w[0], 2 * c.sources * c.group, 1) if self.coarse else None

    def forward(self, x: Tensor) -> Tensor:
        c = self.config
        length = x.shape[-1]
        mix = x[:, 0].float()
        side = c.n_fft - c.hop_length
        with torch.autocast(x.device.type, enabled=False):
            level = mix.square().mean(-1, keepdim=True).add(1e-10).sqrt()
            frames = F.pad(mix, (side, side)).unfold(-1, c.n_fft, c.hop_length)  # (B, L, n)
            spectrum = torch.fft.rfft(frames * self.window)  # (B, L, F)
            parts = torch.view_as_real(spectrum / level.unsqueeze(-1) * (2 / c.n_fft) ** 0.5)
            power = parts.square().sum(-1, keepdim=True) + 1e-5
            h = torch.cat([parts * power**-0.35, power**0.15 - 1], -1)[:, :, : self.bins]
        h = self.masks(h.permute(0, 3, 1, 2))  # (B, 2S, L, F)
        with torch.autocast(x.device.type, enabled=False):
            h = F.pad(h.float(), (0, 1))
            h = h.unflatten(1, (c.sources, 2)).permute(0, 1, 3, 4, 2).contiguous()  # (B, S, L, F, 2)
            made = torch.view_as_complex(h) * spectrum.unsqueeze(1)
            frames = torch.fft.irfft(made, c.n_fft) * self.window  # (B, S, L, n)
            b, s, l, n = frames.shape
            folded = F.fold(
                frames.reshape(b * s, l, n).transpose(1, 2),
                (1, (l - 1) * c.hop_length + n),
                (1, n),
                stride=(1, c.hop_length),
            ).reshape(b, s, -1)
            made = folded[..., side : side + length] / (c.n_fft / c.hop_length / 2)
        if c.consistent and not self.training:
            made = made + (mix.unsqueeze(1) - made.sum(1, keepdim=True)) / c.sources
        return made[..., c.context : length - c.context].unsqueeze(2)

    def masks(self, h: Tensor) -> Tensor:
        c = self.config
        l = h.shape[2]
        stride = 1
        for each in c.time_strides:
            stride *= each
        h = F.pad(h, (0, 0, 0, -l % stride)).contiguous(memory_format=torch.channels_last)
        low = self.enter(h[..., : c.fine])
        if self.enter_high is not None:
            low = torch.cat([low, self.enter_high(h[..., c.fine :].contiguous(memory_format=torch.channels_last))], -1)
        h = F.leaky_relu(self.enter_scale(low), c.slope)
        skips = []
        for encode, down, scale in zip(self.encode, self.down, self.down_scale):
            h = encode(h)
            skips.append(h)
            h = F.leaky_relu(scale(down(h)), c.slope)
        h = self.middle[0](h)
        if self.sequence is not None:
            h = self.sequence(h)
        h = self.middle[1](h)
        for up, scale, decode in zip(self.up, self.up_scale, self.decode):
            h = F.leaky_relu(skips.pop() + scale(up(h)), c.slope)
            h = decode(h)
        low = self.head(h[..., : c.fine])
        if self.head_high is not None:
            high = self.head_high(h[..., c.fine :])  # (B, 2SG, L, F/G)
            high = high.unflatten(1, (-1, c.group)).permute(0, 1, 3, 4, 2).flatten(3)
            low = torch.cat([low, high], -1)
        return low[:, :, :l]
