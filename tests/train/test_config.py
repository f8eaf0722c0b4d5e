"""train/config.py: the example configs, and what they describe."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import EXAMPLES
from corpora import generator, voices

from audiosr_cli.checkpoints import store
from audiosr_cli.models import build
from audiosr_cli.train.config import DataConfig, read_config
from audiosr_cli.train.data import folder_paths
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.reverb import MeasuredRirs
from audiosr_cli.train.tasks import Recordings

CONFIGS = sorted((EXAMPLES / "train").glob("*.toml"))


@cache
def measured_rooms(rate: int) -> MeasuredRirs:
    """One room with a single reflection."""
    response = torch.zeros(1, rate // 4)
    response[0, [0, rate // 10]] = torch.tensor([1.0, 0.5])
    return MeasuredRirs(rate, (response,))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_makes_batches_that_its_network_takes(path: Path) -> None:
    config = read_config(path)
    spec = config.training_model.spec
    corpus = voices(128 if spec.task == "embed" else 4, 4.0, spec.out_rate)
    noise = voices(1, 4.0, spec.out_rate) if config.data.noise else None
    rooms = measured_rooms(spec.out_rate) if config.data.rir else None
    batch = config.task.batch(Recordings(corpus, corpus, noise, rooms), generator(), Ranks())
    torch.manual_seed(0)
    model = build(config.architecture, config.training_model)
    with torch.no_grad():
        few = 2 if spec.task == "embed" else 1  # voices are told from each other
        terms = config.task.losses(model, {key: value[:few] for key, value in batch.items()}).terms
    assert all(torch.isfinite(term) for term in terms.values())
    with torch.device("meta"):
        described = build(config.architecture, config.model)
    assert described.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["spectral2", "spectral2_narrow", "spectral_bwe", "audiosr_small", "audio_unet"])
def test_the_bundled_models_are_what_their_examples_describe(name: str) -> None:
    described = [config for path in CONFIGS if (config := read_config(path)).model.spec.name == name]
    assert len(described) == 1
    assert store.load_model(name).config == described[0].model


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_folders_of_every_example_exist(path: Path, data: Path) -> None:
    wanted = read_config(path).data
    root = data if path.stem != "tutorial" else EXAMPLES
    assert folder_paths(root, wanted.train + wanted.valid + wanted.noise + wanted.rir + wanted.valid_noise)
    assert (root / wanted.table).exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_examples_that_list_shares_list_one_for_each_folder(path: Path) -> None:
    wanted = read_config(path).data
    assert len(wanted.shares) in (0, len(wanted.train))
    assert wanted.table or len(wanted.train) == 1  # a speaker of two folders is one speaker


def test_the_page_on_data_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    section = page.split("## The `[data]` section")[1].split("\n## ")[0]
    for field in fields(DataConfig):
        assert f"`{field.name}`" in section
