"""train/config.py: the example configs, and what they describe."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import EXAMPLES
from corpora import RUN, generator, run, voices

from audiosr_cli.checkpoints import store
from audiosr_cli.errors import TrainingError, UsageError
from audiosr_cli.models import build
from audiosr_cli.train.config import DataConfig, read_config
from audiosr_cli.train.data import folder_paths
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.reverb import MeasuredRirs
from audiosr_cli.train.tasks import Recordings

CONFIGS = sorted((EXAMPLES / "train").glob("*.toml"))


@cache
def measured_rirs(rate: int) -> MeasuredRirs:
    """One room with a single reflection."""
    response = torch.zeros(1, rate // 4)
    response[0, [0, rate // 10]] = torch.tensor([1.0, 0.5])
    return MeasuredRirs(rate, (response,))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_example_makes_batches_for_its_network(path: Path) -> None:
    config = read_config(path)
    spec = config.training_model.spec
    if path.stem == "separate_sfsrnet":  # 16 transformer layers on chunks of 4 s take ten seconds
        config = replace(config, task=replace(config.task, crop_s=0.5))
    corpus = voices(128 if spec.task == "embed" else 4, 4.0, spec.out_rate)
    folders = config.data.train  # which say what an audio classifier should recognise
    corpus = replace(corpus, names=[f"/{folders[k % len(folders)]}/a.wav" for k in range(len(corpus.names))])
    noise = voices(1, 4.0, spec.out_rate) if config.data.noise else None
    rirs = measured_rirs(spec.out_rate) if config.data.rir else None
    batch = config.task.batch(Recordings(corpus, corpus, noise, rirs), generator(), Ranks())
    torch.manual_seed(0)
    model = build(config.architecture, config.training_model)
    with torch.no_grad():
        few = 2 if spec.task == "embed" else 1  # the loss compares speakers
        terms = config.task.losses(model, {key: value[:few] for key, value in batch.items()}).terms
    assert all(torch.isfinite(term) for term in terms.values())
    with torch.device("meta"):
        described = build(config.architecture, config.model)
    assert described.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["spectral2", "spectral2_narrow", "spectral_bwe", "audiosr_small", "audio_unet"])
def test_bundled_models_match_their_example_configs(name: str) -> None:
    described = [config for path in CONFIGS if (config := read_config(path)).model.spec.name == name]
    assert len(described) == 1
    assert store.load_model(name).config == described[0].model


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_folders_of_every_example_exist(path: Path, data: Path) -> None:
    settings = read_config(path).data
    root = data if path.stem != "tutorial" else EXAMPLES
    assert folder_paths(root, settings.train + settings.valid + settings.noise + settings.rir + settings.valid_noise)
    assert (root / settings.table).exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_examples_that_list_shares_list_one_for_each_folder(path: Path) -> None:
    settings = read_config(path).data
    assert len(settings.shares) in (0, len(settings.train))
    assert settings.table or len(settings.train) == 1  # a speaker of two folders is one speaker


def test_the_page_on_data_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    section = page.split("## The `[data]` section")[1].split("\n## ")[0]
    for field in fields(DataConfig):
        assert f"`{field.name}`" in section


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (("batch_size = 2", "batch_sise = 2"), UsageError, "did you mean 'batch_size'"),
        (("level_db", "level"), UsageError, r"\[task.mixing\] has no key 'level'; did you mean 'level_db'"),
        (("[loop]", "[loops]"), UsageError, "unknown section"),
        (
            ('architecture = "wave_u_net"', 'architecture = "x"'),
            UsageError,
            "known: audio_classifier, audio_unet, audiosr, band_masks",
        ),
        (
            ('name = "separate"', 'name = "x"'),
            UsageError,
            "known: audiosr, classify, embed, separate, separate-sr, speech-and-rest, upsample",
        ),
        (("batch_size = 2", ""), UsageError, "the key 'batch_size' is missing"),
        (("batch_size = 2", "batch_size = 2.5"), UsageError, "expected an integer"),
        (("level_db = [0.0, 0.0]", "level_db = [0.0]"), UsageError, "expected 2 values"),
        (("level_db = [0.0, 0.0]", "level_db = 3"), UsageError, "expected a list"),
        (('precision = "fp32"', 'precision = "fp8"'), UsageError, "must be one of bf16, fp32"),
        (("minutes = 0.05", "minutes = 0"), UsageError, "above 0"),
        (("batch_size = 2", "batch_size = 0"), UsageError, "batch_size = 0: must be above 0"),
        (("level_db", "turns_prob = 1.5\nlevel_db"), UsageError, "turns_prob = 1.5: must be between 0 and 1"),
        (("level_db", "overlap = [1.0, 0.5]\nlevel_db"), UsageError, "the lower value first"),
        (("level_db", "noise_prob = 0.5\nlevel_db"), UsageError, r"noise_prob = 0.5: needs recordings of noise"),
        (
            ("level_db", "reverb_prob = 0.5\nmeasured_rir_share = 0.5\nlevel_db"),
            UsageError,
            r"measured_rir_share = 0.5: needs measured responses",
        ),
        (('train = ["train"]', 'train = ["train"]\nrir = ["rir"]'), TrainingError, "rir: no such folder; set --data"),
        (('train = ["train"]', 'train = ["train"]\nbalance = 2'), UsageError, "balance = 2.0: must be between 0 and 1"),
        (('train = ["train"]', 'train = ["train"]\nmin_seconds = 9.0'), TrainingError, "every recording is shorter"),
        (("minutes = 0.05", "minutes = true"), UsageError, "expected a number"),
        (("warmup_steps = 5", "betas = [0.9, 1.0]"), UsageError, "below 1"),
        (("filters = 8", "filters = 8.0"), UsageError, "expected an integer"),
        (('output = "linear"', 'output = "liner"'), UsageError, "must be one of tanh, clip, linear"),
        (('name = "tiny"', 'name = "a/b"'), UsageError, "letters, digits"),
        (("norm = true", "norm = true\nchannels = 2"), UsageError, "channels = 2: must be 1"),
        (('name = "separate"', 'name = "upsample"'), UsageError, "is a model for the task 'separate'"),
        (("valid = false", "valid = false\nsources = 3"), UsageError, "changes the shapes"),
        (('valid = ["valid"]', 'valid = ["valid/d"]'), TrainingError, "1 speaker"),
        (("crop_s = 0.256", "crop_s = 0.2561"), UsageError, "do not fit this network"),
        (('train = ["train"]', 'train = ["no"]'), TrainingError, "no such folder"),
        (('train = ["train"]', 'train = ["train/a"]'), TrainingError, "1 speaker"),
        (("[model]", "[model"), TrainingError, "cannot be read as TOML"),
        (("filters = 8", f"filters = {'[' * 999}8{']' * 999}"), TrainingError, "nested more than 100 levels deep"),
    ],
)
def test_unusable_configs_and_data_are_named_in_the_error(
    change: tuple[str, str], kind: type[Exception], message: str, speakers: Path
) -> None:
    with pytest.raises(kind, match=message):
        run(speakers, RUN.replace(*change))
    assert not (speakers / "out" / "tiny.safetensors").exists()
