"""Compare separators on the fixed validation sets of training: plain, turns, noise, rooms.

`python tools/score_valid_sets.py spectral2 spectral2_narrow runs/mine/mine.safetensors`. All models get the same
mixtures, created at the highest of their rates and resampled to each model's own. The first table scores every model at
its own rate, the second all of them at the lowest rate.
"""

from __future__ import annotations

import argparse

import torch
from data_folder import add_data_option

from audiosr_cli.checkpoints.store import load_model
from audiosr_cli.dsp.spectra import change_rate
from audiosr_cli.models import Model
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.data import load_corpus, read_table
from audiosr_cli.train.recordings import cache_folder
from audiosr_cli.train.tasks.valid_sets import CLIP_S, SETS, render_set, separate_mixtures, si_sdr_improvement

CPU = torch.device("cpu")


def scores(model: Model, valid: Corpus, noise: Corpus, lowest: int) -> tuple[list[float], list[float]]:
    """Return the SI-SDRi in dB on every set, at the model's own rate and at ``lowest`` Hz."""
    own, low = [], []
    for name in SETS:
        sources, length, rate = model.spec.sources, round(CLIP_S * valid.sample_rate), model.spec.in_rate
        mix, parts = render_set(name, valid, sources, length, CPU, noise, rate)
        estimates = separate_mixtures(model, mix)
        own.append(si_sdr_improvement(estimates, mix, parts))
        low.append(si_sdr_improvement(*(change_rate(waves, rate, lowest) for waves in (estimates, mix, parts))))
    return own, low


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="bundled names or .safetensors files, for one number of speakers")
    add_data_option(parser)
    parser.add_argument("--valid", default="speech16k/valid", help="speakers, below --data (default: %(default)s)")
    parser.add_argument("--noise", default="noise48k/valid", help="noise, below --data (default: %(default)s)")
    options = parser.parse_args()
    models = {name: load_model(name).eval() for name in options.models}
    rates = [model.spec.in_rate for model in models.values()]
    table = read_table(options.data / "manifest.csv")
    valid, noise = (
        load_corpus([options.data / folder], max(rates), cache_folder(), table)
        for folder in (options.valid, options.noise)
    )
    results = {name: scores(model, valid, noise, min(rates)) for name, model in models.items()}
    for title, at in (("own rate", 0), (f"all at {min(rates)} Hz", 1)):
        print(f"\n| SI-SDRi (dB), {title} | {' | '.join(SETS)} |\n|---|{'---|' * len(SETS)}")
        for name, metrics in results.items():
            print(f"| {name} | {' | '.join(f'{value:.2f}' for value in metrics[at])} |")


if __name__ == "__main__":
    main()
