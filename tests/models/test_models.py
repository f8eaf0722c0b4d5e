"""Every model: spec, shapes, gradients, learning, golden output, and streaming equal to one pass."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import (
    AUDIO,
    CASES,
    DUAL,
    EXACT,
    GOLDEN,
    SPECTRAL,
    TOLERANCE,
    WAVE,
    WINDOWED,
    first_samples,
    golden_key,
    make,
    signal,
)
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.dsp.metrics import si_sdr
from audiosr_cli.errors import ModelError
from audiosr_cli.models import architectures, build, make_config
from audiosr_cli.models.audio_unet import AudioUNetConfig
from audiosr_cli.models.layers import Grid, crop, interleave, subpixel
from audiosr_cli.models.wave_u_net import WaveUNetConfig
from audiosr_cli.streaming.windows import Engine
from audiosr_cli.train.losses import pit


@pytest.mark.parametrize(("name", "values"), CASES)
def test_contract(name: str, values: dict[str, Any]) -> None:
    model = make(name, values).eval()
    spec = model.spec
    out = model(signal(model, spec.window, 2))
    assert out.shape == (2, spec.sources, spec.channels, spec.core * spec.ratio)
    assert out.dtype == torch.float32


@pytest.mark.parametrize(("name", "values"), EXACT)
@pytest.mark.parametrize("length", [1, 100, 1733])
def test_streaming_equals_one_pass(name: str, values: dict[str, Any], length: int) -> None:
    model = make(name, values).eval()
    spec, x = model.spec, signal(model, length)

    def forward(windows: Tensor) -> Tensor:
        with torch.no_grad():
            return model(windows)

    expected = forward(F.pad(x, (spec.context, spec.context)))[0]
    for block in (17, 509):
        engine = Engine(spec, forward, spec.channels, batch=2)
        output = torch.cat([*(engine.push(part) for part in x[0].split(block, dim=-1)), engine.flush()], dim=-1)
        torch.testing.assert_close(output, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "values"), WINDOWED)
@pytest.mark.parametrize("length", [1, 256, 1733])
def test_block_size_changes_no_sample(name: str, values: dict[str, Any], length: int) -> None:
    model = make(name, values).eval()
    x = signal(model, length)[0]

    def forward(windows: Tensor) -> Tensor:
        with torch.no_grad():
            return model(windows)

    output = []
    for block in (17, 509, length):
        engine = Engine(model.spec, forward, 1)
        output.append(torch.cat([*(engine.push(part) for part in x.split(block, dim=-1)), engine.flush()], dim=-1))
        assert output[-1].shape == (model.spec.sources, 1, length)
        assert torch.equal(output[-1], output[0])


@pytest.mark.parametrize(("name", "values"), CASES)
def test_gradients_reach_every_parameter(name: str, values: dict[str, Any]) -> None:
    model = make(name, values)
    model(signal(model, model.spec.window, 2)).square().mean().backward()
    for key, weight in model.named_parameters():
        idle = key.split(".")[0].endswith("_wide") and model.spec.in_rate <= 16000  # no wide bands
        if weight.requires_grad and not idle:
            assert weight.grad is not None, key
            assert weight.grad.abs().max() > 0, key


@pytest.mark.parametrize(("name", "values"), WINDOWED)
def test_separators_overfit_one_mixture(name: str, values: dict[str, Any]) -> None:
    """Learns to part noises of different bands."""
    values = values | {"context": 0, "sources": 2}
    model = make(name, values)
    length = model.spec.window
    low = F.avg_pool1d(signal(model, length + 8), 9, 1)[0]
    high = signal(model, length + 1).diff()[0]
    sources = torch.stack([low / low.std(), high / high.std()], dim=1)  # (1, S, T)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(80):
        output = model(sources.sum(1, keepdim=True)).flatten(2)[:, -2:]  # the last stage
        losses.append(pit(output, sources, si_sdr))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 4


@pytest.mark.parametrize(("name", "values"), [EXACT[0], EXACT[3], EXACT[4], EXACT[5]])
def test_overfits_one_batch(name: str, values: dict[str, Any]) -> None:
    """Learns to double the input, or, with two sources, to give it to the first only."""
    model = make(name, values)
    x = signal(model, model.spec.window, 2)
    with torch.no_grad():
        target = 2 * model(x).detach() * 0 + 0.5
        target[:, 0] = -0.5
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("name", "values"), CASES)
def test_golden(name: str, values: dict[str, Any]) -> None:
    """The first samples of every model with seeded weights, so that a refactor that changes them is seen."""
    golden, key = json.loads(GOLDEN.read_text()), golden_key(name, values)
    assert key in golden, "no golden value yet; `python tests/golden/add.py` adds it"
    torch.testing.assert_close(first_samples(name, values), golden[key], rtol=0, atol=TOLERANCE)


def test_golden_values_are_added_and_never_replaced(tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    missing, wrong = (golden_key(name, values) for name, values in CASES[:2])
    path = tmp_path / "models.json"
    path.write_text(json.dumps({key: value for key, value in golden.items() if key != missing} | {wrong: [0.0] * 8}))
    add = runpy.run_path(str(GOLDEN.with_name("add.py")))["add_missing"]
    assert add(path) == [missing]
    changed = json.loads(path.read_text())
    assert list(changed) == [*(key for key in golden if key != missing), missing]
    torch.testing.assert_close(changed.pop(missing), golden[missing], rtol=0, atol=TOLERANCE)
    assert changed == {key: value for key, value in golden.items() if key != missing} | {wrong: [0.0] * 8}
    content = path.read_text()
    assert add(path) == []
    assert path.read_text() == content


@pytest.mark.parametrize("name", ["wave_u_net", "audio_unet"])
def test_without_biases_gain_in_is_gain_out(name: str) -> None:
    values = (
        WAVE | {"bias": False, "output": "linear", "norm": True} if name == "wave_u_net" else AUDIO | {"bias": False}
    )
    model = make(name, values).eval()
    x = signal(model, model.spec.window)
    torch.testing.assert_close(model(x * 1e-3), model(x) * 1e-3, rtol=1e-4, atol=1e-9)
    assert not model(0 * x).any()


def test_difference_output_sums_to_the_mixture() -> None:
    model = make("wave_u_net", WAVE | {"sources": 3}).eval()
    x, context = signal(model, model.spec.window), model.spec.context
    torch.testing.assert_close(model(x).sum(1), x[..., context:-context])


def test_output_rules_in_training_and_evaluation() -> None:
    x = 50 * signal(make("wave_u_net", WAVE), make_config("wave_u_net", WAVE).spec.window)
    tanh = make("wave_u_net", WAVE | {"difference": False})
    assert tanh.train()(x).abs().max() <= 1
    clip = make("wave_u_net", WAVE | {"difference": False, "output": "clip"})
    assert clip.train()(x).abs().max() > 1
    assert clip.eval()(x).abs().max() == 1
    linear = make("wave_u_net", WAVE | {"difference": False, "output": "linear"})
    assert linear.eval()(x).abs().max() > 1


def test_same_padding_has_no_context_and_agrees_inside() -> None:
    """Weights trained with zero padding do the same without it, away from the ends.

    Valid convolutions shift the decimated grid by half a kernel, so the padded network starts there.
    """
    valid, same = (make("wave_u_net", WAVE | {"valid": v}).eval() for v in (True, False))
    same.load_state_dict(valid.state_dict())
    assert same.spec.context == 0
    x = signal(valid, 4096)
    context, stride = valid.spec.context, valid.config.stride
    start = stride - valid.config.kernel_down // 2 % stride
    whole = same(x[..., start : start + 4080])
    inside = valid(x)[..., :3000]
    torch.testing.assert_close(whole[..., context - start :][..., :3000], inside, rtol=0, atol=TOLERANCE)


def test_learned_upsampling_starts_linear_and_stays_between_neighbours() -> None:
    linear, learned = (make("wave_u_net", WAVE | {"learned_upsampling": v}) for v in (False, True))
    learned.load_state_dict(linear.state_dict(), strict=False)
    x = signal(linear, linear.spec.window)
    torch.testing.assert_close(learned(x), linear(x))
    upsample = learned.upsample[0]
    torch.nn.init.constant_(upsample.weight, 100.0)  # σ = 1: the earlier neighbour
    h = torch.arange(4.0).view(1, 1, 1, 4).expand(1, upsample.weight.shape[1], 1, 4)
    assert upsample(h)[0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_paper_sizes() -> None:
    """Wave-U-Net, sec. 4: with context (M3) it takes 147,443 samples for 16,389."""
    paper = WaveUNetConfig()
    assert (paper.depth, paper.filters, paper.kernel_down, paper.kernel_up) == (12, 24, 15, 5)
    assert (147443 - 16389) // 2 - paper.stride < paper.reach < (147443 - 16389) // 2 + paper.stride
    assert AudioUNetConfig(ratio=4).spec.in_rate == 12000


@pytest.mark.parametrize(
    ("name", "values", "count"),
    [
        ("dual_path", {}, 25_679_361),  # SepFormer as SpeechBrain publishes it
        (
            "dual_path",
            {"filters": 64, "width": 128, "bias": True, "chunk": 100, "padding": 1.0, "path": "lstm", "blocks": 6}
            | {"hidden": 128, "rectified": False, "mask": "sigmoid"},
            3_652_865,  # Asteroid's DPRNNTasNet
        ),
        ("conv_tasnet", {}, 5_050_545),  # Asteroid's ConvTasNet, and the paper's best
        ("dual_path", {"blocks": 8, "layers": 2, "chunk": 50, "stages": True}, 26_415_616),  # SFSRNet's separator
    ],
)
def test_published_sizes(name: str, values: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = build(name, make_config(name, values))
    assert sum(weight.numel() for weight in model.parameters()) == count


def test_stages_are_returned_in_training_only() -> None:
    model = make("dual_path", DUAL | {"stages": True, "blocks": 3})
    x = signal(model, model.spec.window)
    stages = model.train()(x)
    assert stages.shape == (1, 6, 1, 256)
    torch.testing.assert_close(model.eval()(x), stages[:, 4:])


def test_spectral_masks_keep_level_and_sum() -> None:
    model = make("spectral_unet", SPECTRAL | {"sources": 3}).eval()
    x = signal(model, model.spec.window)
    torch.testing.assert_close(model(x).sum(1), x[..., 64:-64])
    torch.testing.assert_close(model(x * 0.1), model(x) * 0.1, rtol=1e-2, atol=1e-4)
    assert not model(0 * x).any()
    spectra = model.stft.analyse(x[:, 0])
    torch.testing.assert_close(model.stft.synthesise(spectra.unsqueeze(1), x.shape[-1]), x)


def test_interpolation_keeps_a_tone() -> None:
    model = make("audio_unet", AUDIO | {"ratio": 4})
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    time = torch.arange(600 + 2 * model.spec.context) - model.spec.context
    output = model(torch.sin(2 * torch.pi * 0.1 * time)[None, None])[0, 0, 0]
    expected = torch.sin(2 * torch.pi * 0.025 * torch.arange(2400))
    torch.testing.assert_close(output, expected, rtol=0, atol=2e-3)


def test_config_errors_name_what_is_known() -> None:
    with pytest.raises(ModelError, match=f"known: {', '.join(architectures())}"):
        make_config("no_such", {})
    with pytest.raises(ModelError, match="no key 'depht'; did you mean 'depth'"):
        make_config("wave_u_net", {"depht": 3})
    with pytest.raises(ModelError, match="core = 100: must be a multiple of 2 \\^ depth = 4096"):
        make_config("wave_u_net", {"core": 100})


def test_every_architecture_has_cases() -> None:
    elsewhere = {"audio_classifier", "audiosr", "speaker_encoder"}  # they have test files of their own
    assert {name for name, _ in CASES} | elsewhere == set(architectures())


def test_layers() -> None:
    h = torch.arange(6.0).view(1, 2, 1, 3)
    assert interleave(h, -h)[0, 0, 0].tolist() == [0, 0, 1, -1, 2, -2]
    assert subpixel(h)[0, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]
    assert Grid(3, 2).conv(5, stride=2) == Grid(7, 4)
    assert crop(h, Grid(0, 2), Grid(2, 2), 2)[0, 0, 0].tolist() == [1, 2]
    with pytest.raises(RuntimeError, match="a map of 3 samples does not contain 3 from 1 on"):
        crop(h, Grid(0, 2), Grid(2, 2), 3)
