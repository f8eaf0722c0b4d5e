"""Make a narrower SpectralUNet from a trained one, to train it further.

`python tools/narrow.py spectral2 CONFIG.toml init.safetensors`. The channels stay that matter
most for mixtures of CONFIG's task. CONFIG may also halve the sample rate with the frames: the bins above are cut off
then. All else in the two configs has to be the same. For wider networks see docs/growing.md.
"""

import argparse
from pathlib import Path

from data_folder import add_data_option

from audiosr_cli.checkpoints.store import load_model, save_model
from audiosr_cli.models.spectral_unet import SpectralUNet, SpectralUNetConfig
from audiosr_cli.train.config import read_config
from audiosr_cli.train.log import Log
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.recordings import load_recordings
from audiosr_cli.train.resize import cut_bins, importance, narrow


def main() -> None:
    """Write the narrower network, and print the score of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a bundled model's name or a .safetensors file")
    parser.add_argument("config", type=Path, help="TOML of the narrower network and its training")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    add_data_option(parser)
    options = parser.parse_args()
    run, trained = read_config(options.config), load_model(options.model)
    config = run.training_model
    if not isinstance(trained, SpectralUNet) or not isinstance(config, SpectralUNetConfig):
        parser.error(f"{options.model} and {options.config} must both be a spectral_unet")
    recordings = load_recordings(run, options.data, Ranks(), Log(print))
    wide = cut_bins(trained, config)
    narrowed = narrow(wide, config, importance(wide, run.task, recordings))
    save_model(
        narrowed, options.out, {"description": f"{options.model}, narrowed", "licence": "MIT"}, storage="float32"
    )
    for name, network in (("before", wide), ("narrowed", narrowed)):
        print(f"{name}: {run.task.score(network.eval(), recordings):.2f} {run.task.metric}")


if __name__ == "__main__":
    main()
