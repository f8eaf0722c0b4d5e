"""Others' models to measure ours against, an adapter each; all of them but soxr with random weights.

Published shapes run through our own code where their packages need not be installed. As their packages do, they take
the whole signal at once, on the rate that they were published for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    Pass = Callable[[Tensor], Any]  # a signal (1, 1, T), whole, through the model

_DPRNN = {
    "filters": 64,
    "width": 128,
    "bias": True,
    "chunk": 100,
    "padding": 1.0,
    "path": "lstm",
    "blocks": 6,
    "hidden": 128,
    "rectified": False,
    "mask": "sigmoid",
}


@dataclass(frozen=True)
class Peer:
    """One peer: ``make`` gives its pass on a device; ``rate`` (Hz) is its input's. ``package`` has to be installed.

    ``random`` weights cost what trained ones do, and are good for nothing else.
    """

    title: str
    task: Literal["separate", "upsample"]
    rate: int
    make: Callable[[str], Pass]
    package: str | None = None
    random: bool = True

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"{self.title} (random weights)" if self.random else self.title

    @property
    def installed(self) -> bool:
        """Whether it can be run here."""
        return self.package is None or find_spec(self.package) is not None


def _shape(architecture: str, **values: Any) -> Callable[[str], Pass]:
    """A published shape of an architecture that we have."""

    def make(device: str) -> Pass:
        from audiosr_cli.models import build, make_config

        return build(architecture, make_config(architecture, values | {"context": 0})).eval().to(device)

    return make


def _ap_bwe(device: str) -> Pass:
    from audiosr_cli.bench.ap_bwe import ApBwe

    return ApBwe().eval().to(device)


def _speechbrain_sepformer(device: str) -> Pass:
    """SpeechBrain's SepFormer as published for WSJ0-2mix."""
    dual_path = import_module("speechbrain.lobes.models.dual_path")

    def block() -> Any:
        options = {"num_layers": 8, "d_model": 256, "nhead": 8, "d_ffn": 1024}
        return dual_path.SBTransformerBlock(**options, use_positional_encoding=True, norm_before=True)

    options = {"num_layers": 2, "norm": "ln", "K": 250, "linear_layer_after_inter_intra": False}
    encoder = dual_path.Encoder(kernel_size=16, out_channels=256).to(device)
    masks = dual_path.Dual_Path_Model(256, 256, block(), block(), **options).eval().to(device)
    decoder = dual_path.Decoder(in_channels=256, out_channels=1, kernel_size=16, stride=8, bias=False).to(device)

    def run(x: Tensor) -> list[Tensor]:
        encoded = encoder(x[:, 0])
        return [decoder(mask * encoded) for mask in masks(encoded)]

    return run


def _asteroid(name: str) -> Callable[[str], Pass]:
    """One of Asteroid's models with its default arguments."""

    def make(device: str) -> Pass:
        model = getattr(import_module("asteroid.models"), name)(n_src=2).eval().to(device)
        return lambda x: model(x[:, 0])

    return make


def _demucs(device: str) -> Pass:
    """Hybrid Transformer Demucs with two sources, in its own segments of stereo at 44.1 kHz."""
    model = import_module("demucs.htdemucs").HTDemucs(sources=["one", "two"]).eval().to(device)
    apply = import_module("demucs.apply").apply_model
    return lambda x: apply(model, x.expand(1, 2, -1), device=device)


def _soxr(device: str) -> Pass:
    """What `audiosr upsample --model none` does to samples; never on a device."""
    from audiosr_cli.audio.resample import Resampler

    del device

    def run(x: Tensor) -> None:
        wave, resampler = x[0].cpu().numpy(), Resampler(8000, 48000, 1)
        for begin in range(0, wave.shape[1], 1 << 16):
            resampler.push(wave[:, begin : begin + (1 << 16)])
        resampler.push(wave[:, :0], last=True)

    return run


PEERS: dict[str, Peer] = {
    "soxr": Peer("soxr", "upsample", 8000, _soxr, random=False),
    "ap-bwe": Peer("AP-BWE's shape", "upsample", 48000, _ap_bwe),
    "sepformer": Peer("SepFormer, our code", "separate", 8000, _shape("dual_path")),
    "sfsrnet": Peer(
        "SFSRNet's separator", "separate", 8000, _shape("dual_path", blocks=8, layers=2, chunk=50, stages=True)
    ),
    "dprnn": Peer("DPRNN, our code", "separate", 8000, _shape("dual_path", **_DPRNN)),
    "conv-tasnet": Peer("Conv-TasNet, our code", "separate", 8000, _shape("conv_tasnet")),
    "speechbrain-sepformer": Peer(
        "SpeechBrain SepFormer", "separate", 8000, _speechbrain_sepformer, package="speechbrain"
    ),
    "asteroid-dprnn": Peer("Asteroid DPRNNTasNet", "separate", 8000, _asteroid("DPRNNTasNet"), package="asteroid"),
    "asteroid-convtasnet": Peer("Asteroid ConvTasNet", "separate", 8000, _asteroid("ConvTasNet"), package="asteroid"),
    "demucs": Peer("Demucs (HTDemucs)", "separate", 44100, _demucs, package="demucs"),
}


def installed() -> list[str]:
    """Names of the peers that can be run here."""
    return [name for name, peer in PEERS.items() if peer.installed]
