"""train/heads.py and auxiliary.py: auxiliary heads, switched on and off when a run is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import Rows, generator, interrupt_at, run, voices
from safetensors.torch import load_file
from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.models import build, make_config
from audiosr_cli.models.spectral_unet import SpectralUNet, SpectralUNetConfig
from audiosr_cli.train import checkpoint
from audiosr_cli.train.heads import ClusteringConfig, Heads, ModelWithHeads
from audiosr_cli.train.log import Log
from audiosr_cli.train.loop import Trainer
from audiosr_cli.train.loop_config import LoopConfig
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings, Separation

# 16 single bins and 8 groups of 6; 33 frames are padded to 34.
CONFIG = SpectralUNetConfig(
    sample_rate=8000,
    n_fft=128,
    hop_length=64,
    fine=16,
    group=6,
    widths=(8, 16),
    time_strides=(2,),
    hidden=16,
    layers=1,
    heads=2,
    context=0,
    core=1024,
    overlap=0,
)
BOTH = {"clustering": ClusteringConfig(10.0, 4), "half_resolution_weight": 0.5}
RECORDINGS = Recordings(voices(4, 1.0), voices(3, 1.0))


def network(seed: int = 0, config: SpectralUNetConfig = CONFIG) -> SpectralUNet:
    torch.manual_seed(seed)
    return SpectralUNet(config).train()


def heads_of(model: SpectralUNet, loss: Any = None) -> Heads:
    return Heads(model, ClusteringConfig(10.0, 4), 0.5, loss or (lambda a, b: (a - b).abs().mean()))


def test_heads_do_not_change_the_networks_output() -> None:
    model = network()
    x = torch.randn(2, 1, 2048, generator=generator())
    output, extra = ModelWithHeads(model, heads_of(model))(x)
    assert torch.equal(output, model(x))
    assert extra["clustering"].shape == (2, 33, 24, 4)
    torch.testing.assert_close(extra["clustering"].norm(dim=-1), torch.ones(2, 33, 24))
    assert extra["half_resolution"].shape == (2, 2, 2048)


def test_maps_are_the_decoders_from_the_lowest_up() -> None:
    maps: list[Tensor] = []
    network()(torch.randn(1, 1, 2048, generator=generator()), maps)
    assert [tuple(h.shape) for h in maps] == [(1, 16, 17, 12), (1, 8, 34, 24)]


@pytest.mark.parametrize("group", [1, 6])
def test_an_answer_at_half_resolution_has_a_mask_for_every_two_bins_and_frames(group: int) -> None:
    """The mask of the pair of bins and frames with an impulse is 1, all others 0: so much of the input comes out."""
    config = CONFIG if group > 1 else replace(CONFIG, fine=64, group=1)
    heads = heads_of(network(config=config))
    assert heads.half_resolution is not None
    for head in heads.half_resolution:
        torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    bin_of = 9 if group == 1 else 16 + 3 * 6 + 2  # in the pair 8, 9; or in the fourth group, third bin
    low, row, channel = (0, 4, 0) if group == 1 else (1, 8 + 1, 6 // 2 + 1)
    head = heads.half_resolution[low]
    half = torch.zeros(1, 16, 17, config.rows // 2)
    half[0, 0, 5, row] = 1.0
    with torch.no_grad():
        head.weight[channel, 0] = 1.0  # source 0, the real part
    x = torch.randn(1, 1, 2048, generator=generator())
    estimate = heads(x, [half, torch.zeros(1, 8, 34, config.rows)])["half_resolution"]
    spectrum = heads.stft.analyse(x[:, 0])
    alone = torch.zeros_like(spectrum)
    pair = slice(bin_of - bin_of % 2, bin_of - bin_of % 2 + 2)
    alone[:, 10:12, pair] = spectrum[:, 10:12, pair]
    torch.testing.assert_close(estimate[:, 0], heads.stft.synthesise(alone, 2048))
    assert not estimate[:, 1].any()


def test_targets_of_clustering_are_the_dominant_sources() -> None:
    """A low tone and a high one: rows below are the first source's, groups above the second's, by their mean power."""
    heads = heads_of(network())
    time = torch.arange(2048) / 8000
    waves = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (5 * 62.5, 40.5 * 62.5)])[None]
    power = heads._power(waves).view(2, 33, 24)
    assert power[0, 16].argmax() == 5 and power[1, 16].argmax() == 16 + (40 - 16) // 6
    spectrum = heads.stft.analyse(waves).abs().square()[0]
    torch.testing.assert_close(power[1, :, 20], spectrum[1, :, 40:46].mean(1))
    torch.testing.assert_close(power[0, :, 3], spectrum[0, :, 3])
    owner = power.argmax(0)[16]
    assert owner[5] == 0 and owner[20] == 1
    perfect = torch.nn.functional.one_hot(power.argmax(0), 4).float()[None]
    assert float(heads.losses({"clustering": perfect}, {"target": waves})["clustering"]) < 10 * 0.02
    assert float(heads.losses({"clustering": perfect.flip(1, 2)}, {"target": waves})["clustering"]) > 10 * 0.5


def test_losses_are_weighted_and_named() -> None:
    task = Separation(CONFIG.spec, 2, 0.256, **BOTH)
    heads = task.heads(network())
    batch = task.batch(RECORDINGS, generator(), Ranks())
    assert heads is not None
    perfect = heads.losses({"half_resolution": batch["target"].flip(1)}, batch)
    assert float(perfect["half_resolution"]) == pytest.approx(-0.5 * 30.0)
    assert Separation(CONFIG.spec, 2, 0.256).heads(network()) is None
    only = Separation(CONFIG.spec, 2, 0.256, half_resolution_weight=1.0).heads(network())
    assert only is not None and only.clustering is None


def test_networks_without_such_maps_are_refused() -> None:
    task = Separation(CONFIG.spec, 2, 0.256, clustering=ClusteringConfig(10.0))
    with pytest.raises(
        UsageError, match=r"\[task.clustering\] weight = 10: auxiliary heads need \[model\] architecture"
    ):
        task.heads(build("wave_u_net", make_config("wave_u_net", {})))
    with pytest.raises(UsageError, match=r"context = 0, not 256"):
        task.heads(network(config=replace(CONFIG, context=256)))
    with pytest.raises(UsageError, match=r"half_resolution_weight = 0.5: needs .* even .* not 17"):
        heads_of(network(config=replace(CONFIG, fine=17, group=1, n_fft=128, widths=(8, 8), time_strides=(2,))))


def make_trainer(out: Path, optimizer: str, heads: bool, **values: Any) -> Trainer:
    model, rows = network(), list[Any]()
    task = Separation(CONFIG.spec, 2, 0.256, **((BOTH | values) if heads else {}))
    loop = LoopConfig(precision="fp32", warmup_steps=1, optimizer=optimizer, learning_rate=3e-3)
    return Trainer(model, network(), task, loop, out, Ranks(), Log(rows.append), {}, "same")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_resumes_with_heads_and_without_them(optimizer: str, tmp_path: Path) -> None:
    """What the optimizer knows of the network stays with the network; what a head knows comes back with that head."""

    def steps(trainer: Trainer, count: int = 3) -> dict[str, float]:
        terms = [trainer.train_step(trainer.batch(RECORDINGS)) for _ in range(count)]
        trainer.save()
        return terms[-1]

    def optimizer_states(trainer: Trainer) -> list[dict[str, Tensor]]:
        return [{k: v.clone() for k, v in trainer.optimizer.state[p].items()} for p in trainer.model.parameters()]

    plain = make_trainer(tmp_path, optimizer, heads=False)
    assert set(steps(plain)) == {"si_snr_and_level"}
    with_heads = make_trainer(tmp_path, optimizer, heads=True)
    with_heads.load()
    for own, theirs in zip(optimizer_states(with_heads), optimizer_states(plain), strict=True):
        assert own.keys() == theirs.keys() and all(torch.equal(own[key], theirs[key]) for key in own)
    assert with_heads.auxiliary.heads is not None
    assert not any(with_heads.optimizer.state[p] for p in with_heads.auxiliary.parameters())
    before = [p.clone() for p in with_heads.auxiliary.parameters()]
    terms = steps(with_heads)
    assert set(terms) == {"si_snr_and_level", "clustering", "half_resolution"}
    assert all(not torch.equal(a, b) for a, b in zip(before, with_heads.auxiliary.parameters(), strict=True))

    again = make_trainer(tmp_path, optimizer, heads=True)
    again.load()
    for own, theirs in zip(again.auxiliary.parameters(), with_heads.auxiliary.parameters(), strict=True):
        assert torch.equal(own, theirs)
        states = again.optimizer.state[own], with_heads.optimizer.state[theirs]
        assert states[0] and all(torch.equal(states[0][key], states[1][key]) for key in states[1])

    wider = make_trainer(tmp_path, optimizer, heads=True, clustering=ClusteringConfig(10.0, 6))
    wider.load()
    assert wider.auxiliary.heads is not None and wider.auxiliary.heads.clustering is not None
    assert not wider.optimizer.state[wider.auxiliary.heads.clustering.weight]
    assert wider.optimizer.state[next(wider.auxiliary.heads.half_resolution.parameters())]
    wider.train_step(wider.batch(RECORDINGS))

    without = make_trainer(tmp_path, optimizer, heads=False)
    without.load()
    for own, theirs in zip(optimizer_states(without), optimizer_states(with_heads), strict=True):
        assert own.keys() == theirs.keys() and all(torch.equal(own[key], theirs[key]) for key in own)
    steps(without)
    state = checkpoint.load(tmp_path)[0]
    assert not state["auxiliary"]["heads"]
    assert len(state["optimizer"]["state"]) == len(list(without.model.parameters()))


def test_states_of_versions_without_aids_can_be_resumed(tmp_path: Path) -> None:
    plain = make_trainer(tmp_path, "muon", heads=False)
    plain.train_step(plain.batch(RECORDINGS))
    plain.save()
    state, turn = checkpoint.load(tmp_path)
    del state["auxiliary"]
    checkpoint.save(tmp_path, state, turn)
    trainer = make_trainer(tmp_path, "muon", heads=True)
    trainer.load()
    assert trainer.progress.step == 1
    trainer.train_step(trainer.batch(RECORDINGS))


def test_a_head_learns_with_the_network(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "muon", heads=True)
    batch = trainer.batch(RECORDINGS)
    seen = [trainer.train_step(batch) for _ in range(60)]
    assert seen[-1]["clustering"] < 0.8 * seen[0]["clustering"]
    assert seen[-1]["half_resolution"] < seen[0]["half_resolution"] - 1
    assert seen[-1]["si_snr_and_level"] < seen[0]["si_snr_and_level"] - 2


def test_a_silent_batch_keeps_everything_finite(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "adamw", heads=True)
    batch = trainer.batch(RECORDINGS)
    batch["input"][0], batch["target"][0] = 0, 0
    terms = trainer.train_step(batch)
    assert all(abs(value) < 1e3 for value in terms.values())
    assert trainer.gradient_check.consecutive == 0
    assert all(torch.isfinite(p).all() for p in (*trainer.model.parameters(), *trainer.auxiliary.parameters()))


AUXILIARY = """
[model]
architecture = "spectral_unet"
name = "tiny"
sample_rate = 8000
n_fft = 128
hop_length = 64
fine = 64
widths = [8, 16]
time_strides = [2]
hidden = 16
layers = 1
heads = 2
context = 512
core = 1024
overlap = 0
[model.training]
context = 0
[data]
train = ["train"]
valid = ["valid"]
[task]
name = "separate"
batch_size = 2
crop_s = 0.256
half_resolution_weight = 0.5
[task.clustering]
weight = 10.0
[task.pair_sampling]
candidates = 2
[loop]
steps = 12
warmup_steps = 2
valid_every_min = 5.0
ema = 0.9
optimizer = "muon"
"""


def test_an_interrupted_run_with_all_auxiliary_losses_has_the_same_result(
    speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, _ = run(speakers, AUXILIARY, "whole")
    names = {key.split(".")[0] for key in load_file(best)}  # AUXILIARY has no groups
    assert names == {key for key, _ in network().named_children()} - {"stft", "enter_high", "head_high"}
    interrupt_at(7, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(speakers, AUXILIARY, "parts")
    run(speakers, AUXILIARY, "parts", resume=True)
    whole, parts = (checkpoint.load(speakers / name)[0] for name in ("whole", "parts"))
    for key, value in whole["model"].items():
        torch.testing.assert_close(parts["model"][key], value, atol=1e-4, rtol=0, msg=key)
    for key, value in whole["auxiliary"]["heads"].items():
        torch.testing.assert_close(parts["auxiliary"]["heads"][key], value, atol=1e-4, rtol=0, msg=key)
    difficulty, other = (state["auxiliary"]["difficulty"] for state in (whole, parts))
    assert difficulty["steps"] == 12 and torch.equal(difficulty["pairs"], other["pairs"])
    assert len(difficulty["pairs"]) == 3
    torch.testing.assert_close(other["difficulty"], difficulty["difficulty"], atol=1e-2, rtol=0)


def test_every_aid_can_be_switched_off_and_on_by_the_config_of_a_resume(speakers: Path) -> None:
    plain = AUXILIARY[: AUXILIARY.index("half_resolution_weight")] + AUXILIARY[AUXILIARY.index("[loop]") :]
    run(speakers, plain.replace("steps = 12", "steps = 2"))
    run(speakers, AUXILIARY.replace("steps = 12", "steps = 4"), resume=True)
    assert checkpoint.load(speakers / "out")[0]["auxiliary"]["difficulty"]["steps"] == 2
    run(speakers, plain.replace("steps = 12", "steps = 5"), resume=True)
    assert checkpoint.load(speakers / "out")[0]["step"] == 5


def test_impossible_configs_are_refused_before_anything_is_written(speakers: Path) -> None:
    rows: Rows = []
    with pytest.raises(UsageError, match="context = 0, not 512"):
        run(speakers, AUXILIARY.replace("[model.training]\ncontext = 0", ""))
    with pytest.raises(UsageError, match="embedding_dim = 1"):
        run(speakers, AUXILIARY.replace("weight = 10.0", "weight = 10.0\nembedding_dim = 1"))
    with pytest.raises(UsageError, match="half_resolution_weight = -1"):
        run(speakers, AUXILIARY.replace("half_resolution_weight = 0.5", "half_resolution_weight = -1.0"))
    with pytest.raises(UsageError, match="turns_prob, padded_prob and silent_source_prob must be below 1"):
        run(
            speakers, AUXILIARY.replace("[task.pair_sampling]", "[task.mixing]\nturns_prob = 1.0\n[task.pair_sampling]")
        )
    assert not rows and not (speakers / "out").exists()
