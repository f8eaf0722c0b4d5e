"""Models of others to compare with, an adapter each; all but soxr have random weights.

Published shapes run in our own code, so that their packages need not be installed. As in those packages, a peer
processes the whole signal at once, at the sample rate that it was published for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    PeerForward = Callable[[Tensor], Any]  # processes a whole signal (1, 1, T)

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
    """A model of others.

    Attributes:
        title: Name in tables.
        task: "separate" or "upsample".
        rate: Sample rate of its input in Hz.
        make: Builds it on a device.
        package: Package that has to be installed, or None.
        random: Whether its weights are random: they cost as much as trained ones, but the output is meaningless.
    """

    title: str
    task: Literal["separate", "upsample"]
    rate: int
    make: Callable[[str], PeerForward]
    package: str | None = None
    random: bool = True

    @property
    def label(self) -> str:
        """Return its name in tables, with a note on random weights."""
        return f"{self.title} (random weights)" if self.random else self.title

    @property
    def installed(self) -> bool:
        """Check whether its package is installed."""
        return self.package is None or find_spec(self.package) is not None


def _shape(architecture: str, **values: Any) -> Callable[[str], PeerForward]:
    """Build a published shape of one of our architectures."""

    def make(device: str) -> PeerForward:
        from audiosr_cli.models import build, make_config

        return build(architecture, make_config(architecture, values | {"context": 0})).eval().to(device)

    return make


def _ap_bwe(device: str) -> PeerForward:
    from audiosr_cli.bench.ap_bwe import ApBwe

    return ApBwe().eval().to(device)


def _speechbrain_sepformer(device: str) -> PeerForward:
    """Build SpeechBrain's SepFormer as published for WSJ0-2mix."""
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


def _asteroid(name: str) -> Callable[[str], PeerForward]:
    """Build one of Asteroid's models with its default arguments."""

    def make(device: str) -> PeerForward:
        model = getattr(import_module("asteroid.models"), name)(n_src=2).eval().to(device)
        return lambda x: model(x[:, 0])

    return make


def _demucs(device: str) -> PeerForward:
    """Build Hybrid Transformer Demucs for two sources; it splits stereo at 44.1 kHz into its own segments."""
    model = import_module("demucs.htdemucs").HTDemucs(sources=["one", "two"]).eval().to(device)
    apply = import_module("demucs.apply").apply_model
    return lambda x: apply(model, x.expand(1, 2, -1), device=device)


def _soxr(device: str) -> PeerForward:
    """Resample as `audiosr upsample --model none` does, always on the CPU."""
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
    """List the peers whose packages are installed."""
    return [name for name, peer in PEERS.items() if peer.installed]
