"""What separators cost: `python tools/peers.py [--seconds 20] [--rounds 3]`, each run a process of its own, by turns.

The bundled models stream through the engine; published shapes have random weights and take the whole signal at once,
as their packages do. SpeechBrain's and Asteroid's own code is measured beside ours where it is installed.
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
from torch import Tensor

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
        engine = Engine(model.spec, model, align=Tracker(True, voice))
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


PEERS: dict[str, Callable[[], tuple[Pass, int]]] = {
    "SpeechBrain SepFormer": speechbrain_sepformer,
    "Asteroid DPRNNTasNet": lambda: asteroid_model("DPRNNTasNet"),
    "Asteroid ConvTasNet": lambda: asteroid_model("ConvTasNet"),
}


def one(name: str, seconds: float) -> dict[str, float]:
    """Measure a model in this process."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    run, rate = PEERS[name]() if name in PEERS else shape(name) if name in SHAPES else streamed(name)
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
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.seconds)))
        return
    names = [name for name, entry in catalogue().items() if "separate" in entry["tasks"]] + list(SHAPES) + list(PEERS)
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
