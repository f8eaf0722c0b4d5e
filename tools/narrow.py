"""A narrower SpectralUNet from a trained one, to go on training from.

`python tools/narrow.py spectral2 CONFIG.toml init.safetensors --data ../shared/data`. Channels go in the groups that
are normalised together; those stay that the loss would miss most (first-order Taylor criterion, Molchanov et al., ICLR
2017), by mixtures of CONFIG's task. CONFIG may also halve the rate with the frames: the bins above are cut off then.
Everything else of the two configs has to be the same.
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from audiosr_cli.models.spectral_unet import _GROUP, SpectralUNet, SpectralUNetConfig
from audiosr_cli.train.config import RunConfig, read_config
from audiosr_cli.train.log import Log
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.run import load_recordings
from audiosr_cli.weights import load_model, save_model

BATCHES = 40


def cut_bins(wide: SpectralUNet, config: SpectralUNetConfig) -> SpectralUNet:
    """The same network with the frames and rows of ``config``, its lowest bins."""
    kept = dataclasses.replace(config, widths=wide.config.widths)
    made, given = SpectralUNet(kept), wide.state_dict()
    own = made.state_dict()
    for key, value in own.items():
        value.copy_(given[key][tuple(slice(size) for size in value.shape)])
    return made


def importance(model: SpectralUNet, run: RunConfig, data: Path) -> dict[str, Tensor]:
    """By norm: how much the loss is expected to change without each group of its channels, squared and summed."""
    ranks, generator = Ranks(), torch.Generator().manual_seed(0)
    recordings = load_recordings(run, data, ranks, Log(print, False))
    norms = {key: layer for key, layer in model.named_modules() if isinstance(layer, torch.nn.GroupNorm)}
    found = {key: torch.zeros(layer.num_groups) for key, layer in norms.items()}
    for _ in range(BATCHES):
        model.zero_grad()
        batch = run.task.batch(recordings, generator, ranks)
        sum(run.task.losses(model, batch).terms.values()).backward()  # type: ignore[union-attr]
        for key, layer in norms.items():
            change = layer.weight * layer.weight.grad + layer.bias * layer.bias.grad
            found[key] += change.detach().unflatten(0, (layer.num_groups, -1)).sum(1).square()
    return found


def best(scores: Tensor, width: int) -> Tensor:
    """Which channels stay, of groups with ``scores``, so that ``width`` are left."""
    groups = scores.topk(width // _GROUP).indices.sort().values
    return (groups[:, None] * _GROUP + torch.arange(_GROUP)).flatten()


def narrow(model: SpectralUNet, config: SpectralUNetConfig, scores: dict[str, Tensor]) -> SpectralUNet:
    """The channels of every level that matter most, and of every block's inner map."""
    levels, bottom = range(len(config.widths)), len(config.widths) - 1

    def stream(level: int) -> list[str]:
        """The norms whose maps are added to each other at ``level``."""
        entry = "enter_norm" if level == 0 else f"down_norm.{level - 1}"
        if level == bottom:
            return [entry, "before.norms.1", "after.norms.1"]
        return [entry, f"encode.{level}.norms.1", f"decode.{level}.norms.1", f"up_norm.{level}"]

    kept = [best(sum(scores[key] for key in stream(level)), config.widths[level]) for level in levels]
    wide, rows = model.config.widths[bottom], config.rows >> bottom
    vector = (torch.arange(rows)[:, None] * wide + kept[bottom]).flatten()  # of the bottom, as Sequence flattens it
    given, made = model.state_dict(), SpectralUNet(config)

    def pick(key: str) -> Tensor:
        value, (part, *rest) = given[key], key.split(".")
        match part:
            case "encode" | "decode" | "before" | "after":
                block, level = (f"{part}.{rest[0]}", int(rest[0])) if rest[0].isdigit() else (part, bottom)
                inner = best(scores[f"{block}.norms.0"], config.widths[level])
                kind, index = rest[-3:-1]
                before, after = (kept[level], inner) if index == "0" else (inner, kept[level])
                return value[after][:, before] if kind == "convs" else value[after]
            case "down" | "up":  # the upper level's channels come second: as inputs, or transposed
                return value[kept[int(rest[0]) + 1]][:, kept[int(rest[0])]]
            case "down_norm" | "up_norm":
                return value[kept[int(rest[0]) + (part == "down_norm")]]
            case "enter" | "enter_high" | "enter_norm":
                return value[kept[0]]
            case "head" | "head_high":
                return value[:, kept[0]] if rest == ["weight"] else value
        if key in ("sequence.enter.weight", "sequence.leave.weight"):
            return value[:, vector] if "enter" in key else value[vector]
        return value

    for key, value in made.state_dict().items():
        value.copy_(pick(key))
    return made


def main() -> None:
    """Write the narrower network and say what it scores, as the wide one does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    run, wide = read_config(options.config), load_model(options.model)
    model = cut_bins(wide, run.training_model)
    made = narrow(model, run.training_model, importance(model, run, options.data))
    save_model(made, options.out, {"description": f"{options.model}, narrowed", "licence": "MIT"}, half=False)
    valid = load_recordings(run, options.data, Ranks(), Log(lambda _: None, False)).valid
    for name, network in (("as wide", model), ("narrow", made)):
        print(f"{name}: {run.task.score(network.eval(), valid):.2f} {run.task.figure}")


if __name__ == "__main__":
    main()
