"""Measure the speed of training: `python tools/throughput.py examples/train/*.toml`.

One line per config and mode (precision, compilation): hours of audio per minute, and the share of a step that creates
its batch. With data "off", the same batch is used for every step; what remains is the cost of the network.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from data_folder import add_data_option

from audiosr_cli.models import build
from audiosr_cli.runtime.device import pick_device
from audiosr_cli.train.config import read_config
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.recordings import load_recordings

WARM_UP = 3


def measure(
    path: Path, data: Path, ranks: Ranks, seconds: float, precision: str, compiled: bool, fresh: bool
) -> dict[str, object]:
    """Train for ``seconds`` after a warm-up, with a fresh batch for each step or always the same one."""
    config = read_config(path)
    loop = replace(config.loop, precision=precision, compile=compiled)
    log = Log(print, is_leader=False)
    recordings = load_recordings(config, data, ranks, log)
    torch.manual_seed(0)
    models = build(config.architecture, config.training_model), build(config.architecture, config.model)
    with TemporaryDirectory() as folder:
        trainer = Trainer(*models, config.task, loop, Path(folder), ranks, log, {})
        trainer.model.train()
        trainer.network = torch.compile(trainer.model) if compiled else trainer.model
        batch = trainer.batch(recordings)
        for _ in range(WARM_UP):
            trainer.train_step(batch)
        begin, steps, making = time.perf_counter(), 0, 0.0
        while time.perf_counter() - begin < seconds:
            mark = time.perf_counter()
            if fresh:
                batch = trainer.batch(recordings)
                if ranks.device.type == "cuda":
                    torch.cuda.synchronize()
            making += time.perf_counter() - mark
            trainer.train_step(batch)
            steps += 1
        taken = time.perf_counter() - begin
    audio_h = steps * config.task.batch_size * config.task.crop_s / 3600
    return {
        "config": path.stem,
        "precision": precision,
        "compile": compiled,
        "data": "on" if fresh else "off",
        "audio_hours_per_minute": round(audio_h / taken * 60, 3),
        "ms_per_step": round(1000 * taken / steps, 1),
        "data_share": round(making / taken, 4),
    }


def main() -> None:
    """Print one JSON object per config and mode."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("configs", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    ranks = Ranks(device=torch.device(pick_device(options.device)))
    for path in options.configs:
        ways = [("bf16", True, True), ("bf16", True, False), ("bf16", False, True), ("fp32", False, True)]
        for precision, compiled, fresh in ways:
            row = measure(path, options.data, ranks, options.seconds, precision, compiled, fresh)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
