"""train/config.py: the example configs, and what they describe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import EXAMPLES
from corpora import generator, voices

from audiosr_cli import weights
from audiosr_cli.models import build
from audiosr_cli.train.config import read_config
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings

CONFIGS = sorted((EXAMPLES / "train").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_makes_batches_that_its_network_takes(path: Path) -> None:
    config = read_config(path)
    spec = config.training_model.spec
    corpus = voices(128 if spec.task == "voice" else 4, 4.0, spec.out_rate)
    noise = voices(1, 4.0, spec.out_rate) if config.data.noise else None
    batch = config.task.batch(Recordings(corpus, corpus, noise), generator(), Ranks())
    torch.manual_seed(0)
    model = build(config.architecture, config.training_model)
    with torch.no_grad():
        few = 2 if spec.task == "voice" else 1  # voices are told from each other
        terms = config.task.losses(model, {key: value[:few] for key, value in batch.items()}).terms
    assert all(torch.isfinite(term) for term in terms.values())
    with torch.device("meta"):
        described = build(config.architecture, config.model)
    assert described.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["spectral2", "spectral2_narrow", "spectral_bwe", "audiosr", "audio_unet"])
def test_the_bundled_models_are_what_their_examples_describe(name: str) -> None:
    described = [config for path in CONFIGS if (config := read_config(path)).model.spec.name == name]
    assert len(described) == 1
    assert weights.load_model(name).config == described[0].model
