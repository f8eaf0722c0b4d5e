"""What models cost: `python tools/peers.py [--seconds 20] [--rounds 3]`, each run a process of its own, by turns.

Separators, or with ``--task upsample`` what makes 48 kHz. The bundled models stream through the engine; published
shapes have random weights and take the whole signal at once, as their packages do. SpeechBrain's and Asteroid's own
code is measured beside ours where it is installed.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiosr_cli.api import load_voice
from audiosr_cli.models import Model, build, make_config
from audiosr_cli.stages import listener
from audiosr_cli.tracking import Tracker
from audiosr_cli.weights import catalogue, load_model
from audiosr_cli.windows import Engine

DPRNN = {
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
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "SepFormer, our code": ("dual_path", {}),
    "SFSRNet's separator": ("dual_path", {"blocks": 8, "layers": 2, "chunk": 50, "stages": True}),
    "DPRNN, our code": ("dual_path", DPRNN),
    "Conv-TasNet, our code": ("conv_tasnet", {}),
}
Pass = Callable[[Tensor], Any]


def streamed(name: str) -> tuple[Pass, int]:
    """A bundled model through engine and tracker, and its rate."""
    model = load_model(name)
    voice = listener(load_voice(), model.spec.out_rate)

    def run(x: Tensor) -> None:
        engine = Engine(model.spec, model, align=Tracker(True, voice) if model.spec.sources > 1 else None)
        for block in x[0].split(65536, dim=-1):
            engine.push(block)
        engine.flush()

    return run, model.spec.in_rate


def shape(name: str) -> tuple[Pass, int]:
    """A published shape, all at once."""
    architecture, values = SHAPES[name]
    model: Model = build(architecture, make_config(architecture, values | {"context": 0})).eval()
    return model, model.spec.in_rate


def speechbrain_sepformer() -> tuple[Pass, int]:
    """SpeechBrain's SepFormer as published for WSJ0-2mix."""
    from speechbrain.lobes.models import dual_path

    def block() -> Any:
        options = {"num_layers": 8, "d_model": 256, "nhead": 8, "d_ffn": 1024}
        return dual_path.SBTransformerBlock(**options, use_positional_encoding=True, norm_before=True)

    encoder = dual_path.Encoder(kernel_size=16, out_channels=256)
    masknet = dual_path.Dual_Path_Model(
        256, 256, block(), block(), num_layers=2, norm="ln", K=250, linear_layer_after_inter_intra=False
    ).eval()
    decoder = dual_path.Decoder(in_channels=256, out_channels=1, kernel_size=16, stride=8, bias=False)

    def run(x: Tensor) -> None:
        encoded = encoder(x[:, 0])
        for mask in masknet(encoded):
            decoder(mask * encoded)

    return run, 8000


def asteroid_model(name: str) -> tuple[Pass, int]:
    """Asteroid's models with their default arguments."""
    import asteroid.models

    model = getattr(asteroid.models, name)(n_src=2).eval()
    return (lambda x: model(x[:, 0])), 8000


class ApBwe(nn.Module):
    """What costs of AP-BWE's generator (Lu et al. 2024): frames every 80 samples, 512 channels, 8 pairs of blocks."""

    def __init__(self, width: int = 512, blocks: int = 8) -> None:
        super().__init__()
        self.window = torch.hann_window(320)
        self.enter = nn.ModuleList(nn.Conv1d(513, width, 7, padding=3) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.blocks = nn.ModuleList(nn.ModuleList(self.block(width) for _ in range(2)) for _ in range(blocks))
        self.heads = nn.ModuleList(nn.Linear(width, 513) for _ in range(3))

    @staticmethod
    def block(width: int) -> nn.ModuleList:
        """ConvNeXt's, its MLP three times as wide."""
        return nn.ModuleList(
            [
                nn.Conv1d(width, width, 7, padding=3, groups=width),
                nn.LayerNorm(width),
                nn.Linear(width, 3 * width),
                nn.Linear(3 * width, width),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(1, 1, T) → (1, T')."""
        spectrum = torch.stft(x[:, 0], 1024, 80, 320, self.window, return_complex=True)
        size = (spectrum.abs() + 1e-4).log()
        streams = [
            norm(enter(part).mT)
            for enter, norm, part in zip(self.enter, self.norms, (size, spectrum.angle()), strict=False)
        ]
        for pair in self.blocks:
            streams = [streams[0] + streams[1], streams[1] + streams[0]]
            streams = [h + self.run(block, h) for block, h in zip(pair, streams, strict=True)]
        first, second = (norm(h) for norm, h in zip(self.norms[2:], streams, strict=True))
        made = (size + self.heads[0](first).mT).exp()
        phase = torch.atan2(self.heads[1](second), self.heads[2](second)).mT
        return torch.istft(torch.polar(made, phase), 1024, 80, 320, self.window)

    @staticmethod
    def run(block: nn.ModuleList, h: Tensor) -> Tensor:
        """One block on (1, L, C)."""
        depthwise, norm, wide, narrow = block
        return narrow(F.gelu(wide(norm(depthwise(h.mT).mT))))


def ap_bwe() -> tuple[Pass, int]:
    """AP-BWE as published, random weights."""
    return ApBwe().eval(), 48000


PEERS: dict[str, Callable[[], tuple[Pass, int]]] = {
    "SpeechBrain SepFormer": speechbrain_sepformer,
    "Asteroid DPRNNTasNet": lambda: asteroid_model("DPRNNTasNet"),
    "Asteroid ConvTasNet": lambda: asteroid_model("ConvTasNet"),
}
UPSAMPLERS: dict[str, Callable[[], tuple[Pass, int]]] = {"AP-BWE's shape": ap_bwe}


def one(name: str, seconds: float) -> dict[str, float]:
    """Measure a model in this process."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    known = PEERS | UPSAMPLERS
    run, rate = known[name]() if name in known else shape(name) if name in SHAPES else streamed(name)
    with torch.inference_mode():
        run(0.1 * torch.randn(1, 1, 2 * rate))
        x = 0.1 * torch.randn(1, 1, round(seconds * rate))
        cpu, wall = time.process_time(), time.perf_counter()
        run(x)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"CPU-s per s": cpu / seconds, "wall-s per s": wall / seconds, "peak MB": peak}


def main() -> None:
    """Print a Markdown table of medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--task", default="separate", choices=["separate", "upsample"])
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.seconds)))
        return
    names = [name for name, entry in catalogue().items() if options.task in entry["tasks"]]
    names += list(UPSAMPLERS) if options.task == "upsample" else [*SHAPES, *PEERS]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            command = [sys.executable, __file__, "--one", name, "--seconds", str(options.seconds)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
            else:
                said = done.stderr.splitlines() or [f"ended with {done.returncode}"]
                print(f"{name}: {said[-1]}", file=sys.stderr)
    print("| model | CPU-s per s | wall-s per s | peak MB |\n|---|---|---|---|")
    for name, rows in found.items():
        if rows:
            cells = [f"{median(row[key] for row in rows):.3g}" for key in rows[0]]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
