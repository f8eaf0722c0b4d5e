"""AudioSR: against intermediates of the published model (audiosr_trace.npz, an excerpt), and as it streams."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import BWE
from corpora import generator, voices
from torch import Tensor

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.dsp.spectra import mel_filters
from audiosr_cli.errors import UsageError
from audiosr_cli.models import build, make_config
from audiosr_cli.models.audiosr import AudioSR, join_bands, log_mels
from audiosr_cli.models.diffusion import Sampling
from audiosr_cli.models.hifi_gan import HiFiGAN, HiFiGANConfig
from audiosr_cli.models.latent_unet import LatentUNet, LatentUNetConfig
from audiosr_cli.models.mel_vae import MelVAE, MelVAEConfig
from audiosr_cli.models.runner import ModelCall
from audiosr_cli.streaming import forecast
from audiosr_cli.streaming.in_memory import process_array
from audiosr_cli.streaming.options import Options
from audiosr_cli.streaming.pipeline import Pipeline
from audiosr_cli.train.bandlimit import Degradation
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import AudioSRTraining, Recordings, Upsampling

SMALL: dict[str, Any] = {
    "mels": 32,
    "core": 96,
    "overlap": 16,
    "margin": 64,
    "expected": {"hidden": 8, "blocks": 1},
    "vae": {"width": 4, "multipliers": [1, 1, 2], "blocks": 1, "latent": 4, "attention": False, "steady": True},
    "unet": {"latent": 4, "width": 8, "multipliers": [1, 2], "blocks": 1, "transformers": 1, "head": 4},
    "vocoder": {"n_fft": 960, "hop_length": 480, "hidden": 8, "blocks": 1, "steady": 24, "inputs": 32, "margin": 0},
}


@pytest.fixture(scope="module")
def trace() -> dict[str, Tensor]:
    with np.load(Path(__file__).parents[1] / "golden" / "audiosr_trace.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def small() -> AudioSR:
    torch.manual_seed(0)
    model = build("audiosr", make_config("audiosr", SMALL)).eval().requires_grad_(False)
    assert isinstance(model, AudioSR)
    for name, weight in model.named_parameters():
        if name.endswith(("conv2.weight", "leave.weight", "size.weight", "flatness.weight")):  # they start at zero
            torch.nn.init.normal_(weight, std=0.1)
    return model


def wave(seconds: float, channels: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal((channels, int(48000 * seconds)))).astype(np.float32)


@pytest.mark.parametrize("kind", ["full", "low"])
def test_front_end_is_the_published_one(trace: dict[str, Tensor], kind: str) -> None:
    """As magnitudes: in float32 a frame's rounding is some 1e-8 of its loudest mel, which a logarithm near the floor of
    1e-5 makes 0.004 of, more or less by which FFT a processor has."""
    side = (2048 - 480) // 2
    waves = trace[f"{kind}_wave"][None]
    mels = log_mels(waves, mel_filters(2048, 256, 48000, 20.0))[0]
    reached = side // 480 + 1  # frames that reflections reach; the excerpt begins ``side`` before its first frame
    inside = log_mels(waves[:, side:], mel_filters(2048, 256, 48000, 20.0))[0]
    assert mels.shape[0] >= 16
    sizes, published = inside[reached:-reached].exp(), trace[f"{kind}_mel"][reached : len(inside) - reached].exp()
    torch.testing.assert_close(sizes, published, rtol=1e-4, atol=1e-7 * float(published.max()))


def test_low_mels_are_put_back_as_published(trace: dict[str, Tensor]) -> None:
    low, output, wanted = (trace[key][None] for key in ("replace_mel", "decoded_mel", "replaced_mel"))
    torch.testing.assert_close(join_bands(low, output, 170), wanted, rtol=0, atol=1e-3)
    soft = join_bands(low, output, 170, 4)
    torch.testing.assert_close(soft[..., 170:], output[..., 170:])
    torch.testing.assert_close(soft[..., :166], low[..., :166])


def test_the_low_band_is_put_back_as_published(trace: dict[str, Tensor]) -> None:
    """There with bins that change at once, and 1.25 times as loud: its levels are matched within a fifth."""
    window = torch.hann_window(2048)
    spectra = [
        torch.stft(trace[key], 2048, 512, window=window, return_complex=True).T[None] for key in ("post_low", "post_in")
    ]
    joined = join_bands(spectra[0] / 0.8, spectra[1], 303)[0].T
    output = torch.istft(joined, 2048, 512, window=window)[2048:-2048]
    torch.testing.assert_close(output, trace["post_out"][2048:-2048], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "config", "millions"),
    [(MelVAE, MelVAEConfig(), 223.5), (LatentUNet, LatentUNetConfig(), 258.2), (HiFiGAN, HiFiGANConfig(), 190.3)],
)
def test_published_sizes(model: type[torch.nn.Module], config: Any, millions: float) -> None:
    with torch.device("meta"):
        count = sum(weight.numel() for weight in model(config).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


def test_shapes_of_the_parts() -> None:
    vae = MelVAE(MelVAEConfig(width=4, multipliers=(1, 2, 2), latent=3))
    latent = vae.encode(torch.randn(2, 1, 16, 8))
    assert latent.mean.shape == (2, 3, 4, 2)
    assert vae.decode(latent.sample(torch.randn(2, 3, 4, 2))).shape == (2, 1, 16, 8)
    assert HiFiGAN(HiFiGANConfig(mels=8, width=32))(torch.randn(2, 8, 5)).shape == (2, 5 * 480)


def test_divergence_is_of_normal_distributions() -> None:
    vae = MelVAE(MelVAEConfig(width=4, multipliers=(1, 2), latent=3))
    latent = vae.encode(torch.randn(1, 1, 8, 8))
    own = torch.distributions.Normal(latent.mean, (0.5 * latent.log_variance).exp())
    wanted = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(latent.kl_divergence(), wanted)


def run(model: AudioSR, sampling: Sampling, x: np.ndarray, batch: int = 1) -> np.ndarray:
    return process_array(x, 48000, [ModelCall(model, 6000.0, sampling)], 48000, Options(batch=batch))[0]


def test_predicted_highs_stream_as_one_pass() -> None:
    """Without diffusion the output does not depend on where windows begin."""
    model, sampling, x = small(), Sampling(steps=0), wave(4)
    padded = torch.nn.functional.pad(torch.from_numpy(x)[None], (model.spec.context, model.spec.context))
    whole = ModelCall(model, 6000.0, sampling)(padded)[0, 0, 0]
    np.testing.assert_allclose(run(model, sampling, x)[0], whole.numpy(), atol=1e-5)


def test_the_same_seed_draws_the_same() -> None:
    model, x = small(), wave(3)
    output = run(model, Sampling(steps=2, seed=3), x)
    np.testing.assert_allclose(run(model, Sampling(steps=2, seed=3), x, batch=3), output, atol=1e-5)
    other = run(model, Sampling(steps=2, seed=4), x)
    assert np.abs(other - output).max() > 1e-4
    assert np.abs(run(model, Sampling(steps=2, seed=3, guidance=2.0), x) - output).max() > 1e-4


@pytest.mark.parametrize("stage", ["expected", "vae", "vocoder", "diffusion"])
def test_each_stage_trains_its_network_only(stage: Any) -> None:
    model = small().requires_grad_(True).train()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    task = AudioSRTraining(replace(model.spec, context=0), 2, 0.64, stage=stage)
    corpus = voices(2, 2.0, 48000)
    batch = task.batch(Recordings(corpus, corpus), generator(), Ranks())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found = []
    for _ in range(12):
        loss = torch.stack(list(task.losses(model, batch).terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.98 * found[0]
    moved = {name.split(".")[0] for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {{"diffusion": "unet"}.get(stage, stage)}
    assert (stage == "vae") == (float(model.spread) != 1)


def test_nothing_above_a_recordings_bandwidth_is_a_target() -> None:
    corpus = replace(voices(2, 2.0, 48000), bandwidth=torch.full((2,), 9000.0))
    model = small()
    degradation = Degradation((4000.0, 4000.0), ())
    task = AudioSRTraining(replace(model.spec, context=0), 2, 0.64, degradation, stage="expected")
    batch = task.batch(Recordings(corpus, corpus), generator(), Ranks())
    loss = float(task.losses(model, batch).terms["mels"])
    spectra = torch.fft.rfft(batch["target"])
    spectra[:, int(10500 * 0.64) :] *= 100
    assert float(task.losses(model, batch | {"target": torch.fft.irfft(spectra)}).terms["mels"]) == pytest.approx(
        loss, rel=0.05
    )


def test_the_task_audiosr_needs_an_audiosr() -> None:
    spec = build("spectral_bwe", make_config("spectral_bwe", BWE)).spec
    with pytest.raises(UsageError, match=r"needs \[model\] architecture = 'audiosr'"):
        AudioSRTraining(spec, 2, 0.64, stage="vae")
    with pytest.raises(UsageError, match="is trained with name = 'audiosr'"):
        Upsampling(small().spec, 2, 0.64)


@pytest.mark.parametrize(("values", "said"), [({"steps": -1}, "--steps -1"), ({"guidance": 30.0}, "--guidance 30")])
def test_sampling_has_limits(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Sampling(**values)


@pytest.mark.parametrize("threads", [1, 4])
def test_duration_is_estimated_from_one_window(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window takes 3 s by the clock; channels, seconds and windows per second are those of the recording."""
    monkeypatch.setattr(forecast, "time", SimpleNamespace(monotonic=count(0.0, 3.0).__next__))
    pipeline = Pipeline((small(),), 48000, Options(threads=threads))
    spec = pipeline.models[0].spec
    for name, seconds in (("short", 2), ("long", 10)):
        soundfile.write(tmp_path / f"{name}.wav", wave(seconds, 2).T, 48000)
    with AudioReader(tmp_path / "short.wav") as reader:
        assert pipeline.forecast(reader) is None
    with AudioReader(tmp_path / "long.wav") as reader:
        assert pipeline.forecast(reader) == pytest.approx(3.0 * 2 * 10 * spec.in_rate / spec.hop / threads)
        assert Pipeline((), 48000, Options()).forecast(reader) is None


def test_a_centred_source_stays_centred() -> None:
    output = run(small(), Sampling(steps=2), np.repeat(wave(2), 2, axis=0))
    np.testing.assert_array_equal(output[0], output[1])


def test_gain_in_is_gain_out_and_silence_stays_silent() -> None:
    model, sampling, x = small(), Sampling(steps=2), wave(2)
    output = run(model, sampling, x)
    np.testing.assert_allclose(run(model, sampling, -0.25 * x), -0.25 * output, atol=2e-3 * np.abs(output).max())
    assert not run(model, sampling, 0 * x).any()


def test_what_lies_below_the_cutoff_is_kept() -> None:
    x = wave(2)
    spectra = [np.fft.rfft(signal) for signal in (x[0], run(small(), Sampling(steps=2), x)[0])]
    kept, high = slice(0, 5500 * 2), slice(6100 * 2, None)
    assert np.abs(spectra[0] - spectra[1])[kept].mean() < 1e-2 * np.abs(spectra[0])[kept].mean()
    assert np.abs(spectra[0] - spectra[1])[high].mean() > 0.1 * np.abs(spectra[0])[high].mean()
