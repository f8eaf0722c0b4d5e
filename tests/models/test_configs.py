"""The configs of all models: every impossible value is an error that names the value and the condition."""

from __future__ import annotations

from typing import Any

import pytest

from audiosr_cli.errors import ModelError, UsageError
from audiosr_cli.models import ModelSpec, make_config
from audiosr_cli.models.hifi_gan import HiFiGANConfig

VOCODER = {"n_fft": 960, "hop_length": 480, "steady": 24, "inputs": 256, "margin": 0}
IMPOSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    ("audio_classifier", {"sample_rate": 7000}, "sample_rate = 7000: must be at least 7800"),
    ("audio_classifier", {"classes": ["a"]}, "classes = ['a']: must name at least two"),
    ("audio_classifier", {"classes": ["a", "a"]}, "classes = ['a', 'a']: must differ"),
    ("audio_classifier", {"widths": [8, 0], "time_strides": [1, 1]}, "widths = [8, 0]: must be at least 1"),
    ("audio_classifier", {"widths": [8]}, "widths = [8]: must have as many numbers as time_strides"),
    ("audio_classifier", {"n_fft": 32}, "n_fft = 32: must be at least 64"),
    ("audio_unet", {"filters": [8, 0], "kernels": [9, 9]}, "filters = [8, 0]: must be at least 1"),
    ("audio_unet", {"ratio": 0}, "ratio = 0: must be at least 1"),
    ("audio_unet", {"filters": [8]}, "must have one number per block each"),
    ("audio_unet", {"kernel_out": 8}, "kernel_out = 8: must be odd"),
    ("audio_unet", {"dropout": 1.0}, "dropout = 1: must be at least 0 and below 1"),
    ("audio_unet", {"core": 100}, "core · ratio = 100: must be a multiple of 2 ^ (blocks + 1) = 32"),
    ("audio_unet", {"ratio": 7, "core": 32}, "sample_rate = 48000: must be a multiple of ratio = 7"),
    ("audiosr", {"steady": 0}, "steady = 0: must be at least 1"),
    ("audiosr", {"margin": -8}, "margin = -8: must be at least 0"),
    ("audiosr", {"overlap": 448}, "overlap = 448: must be less than core = 448"),
    ("audiosr", {"vocoder": VOCODER | {"inputs": 8}}, "vocoder.inputs = 8: must be 256"),
    ("audiosr", {"vocoder": VOCODER | {"steady": 1}}, "vocoder.steady = 1: must be 24"),
    ("audiosr", {"vocoder": VOCODER | {"sample_rate": 16000}}, "vocoder.sample_rate = 16000: must be 48000"),
    ("audiosr", {"vae": {"latent": 4}}, "vae.latent = 4, unet.latent = 8: must be equal"),
    ("audiosr", {"n_fft": 2047}, "n_fft - hop_length = 1567: must be even and at least 0"),
    ("audiosr", {"mels": 40, "vocoder": VOCODER | {"inputs": 40}}, "mels = 40: must be a multiple of the strides of"),
    ("audiosr", {"core": 440}, "core + 2 · margin = 568: must be a multiple of the strides of vae and unet = 32"),
    ("audiosr", {"overlap": 4}, "overlap = 4: must be a multiple of the stride of vae = 8"),
    ("audiosr", {"expected": {"kernel": 4}}, "kernel = 4: must be odd"),
    ("audiosr", {"expected": {"blocks": 0}}, "blocks = 0: must be at least 1"),
    ("audiosr", {"vae": {"multipliers": []}}, "multipliers = []: must have at least one number"),
    ("audiosr", {"vae": {"multipliers": [1, 0]}}, "multipliers = [1, 0]: must be at least 1"),
    ("audiosr", {"unet": {"multipliers": []}}, "multipliers = []: must have at least one number"),
    ("audiosr", {"unet": {"blocks": 0}}, "blocks = 0: must be at least 1"),
    ("audiosr", {"unet": {"transformers": -1}}, "transformers = -1: must be at least 0"),
    ("audiosr", {"unet": {"width": 33}}, "width = 33: must be even"),
    ("audiosr", {"unet": {"width": 48}}, "width · 1 = 48: must be a multiple of head = 32"),
    ("band_masks", {"width": 0}, "width = 0: must be at least 1"),
    ("band_masks", {"sources": 1}, "sources = 1: must be at least 2"),
    ("band_masks", {"cutoff_hz": -1.0}, "cutoff_hz = -1.0: must be at least 0"),
    ("band_masks", {"frame_s": 0.0}, "frame_s = 0: must be above 0 and at most 1"),
    ("band_masks", {"frame_s": 0.02, "sample_rate": 11050}, "must be an even number of samples at 11050 Hz, not 221"),
    ("band_masks", {"narrow": 7}, "bins (frame_s · sample_rate / 2) = 256: must be a multiple of narrow = 7"),
    ("band_masks", {"sample_rate": 48000, "wide": 33}, "bins above 8 kHz = 512: must be a multiple of wide = 33"),
    ("band_masks", {"cutoff_hz": 8000.0}, "cutoff_hz = 8000: is bin 256; must be between bins 8 and 255"),
    ("band_masks", {"margin": 5}, "margin = 5: must be 0 or at least what the layers reach, 29 hops"),
    ("band_mixer", {"expansion": 0}, "expansion = 0: must be at least 1"),
    ("band_mixer", {"sources": 1}, "sources = 1: must be at least 2"),
    ("band_mixer", {"dilations": []}, "dilations = []: must have at least one number"),
    ("band_mixer", {"dilations": [1, 0]}, "dilations = [1, 0]: must be at least 1"),
    ("band_mixer", {"kernel": 4}, "kernel = 4: must be odd"),
    ("band_mixer", {"bands": [16, 2]}, "bands = [16, 2]: must be pairs (number of bands, bins of each) with n_fft / 2"),
    ("band_mixer", {"bands": [16, 2, 8]}, "bands = [16, 2, 8]: must be pairs"),
    ("band_mixer", {"hop_length": 100}, "n_fft = 512: must be a multiple of 2 · hop_length = 200"),
    ("band_mixer", {"hidden": 250}, "hidden = 250: must be a multiple of 2 · heads = 8"),
    ("conv_tasnet", {"skip": 0}, "skip = 0: must be at least 1"),
    ("conv_tasnet", {"kernel": 4}, "kernel = 4: must be at least 8"),
    ("conv_tasnet", {"taps": 2}, "taps = 2: must be odd"),
    ("conv_tasnet", {"sources": 0}, "sources = 0: must be at least 1"),
    ("conv_tasnet", {"context": -1}, "context = -1: must be at least 0"),
    ("conv_tasnet", {"sample_rate": 0}, "sample_rate = 0: must be at least 1"),
    ("conv_tasnet", {"overlap": 32000}, "overlap = 32000: must be less than core = 32000"),
    ("conv_tasnet", {"context": 0, "core": 8, "overlap": 0}, "core + 2 · context = 8: must be at least kernel = 16"),
    ("dual_path", {"layers": 0}, "layers = 0: must be at least 1"),
    ("dual_path", {"stride": 17}, "kernel = 16: must be at least 17"),
    ("dual_path", {"chunk": 0}, "chunk = 0: must be at least 2"),
    ("dual_path", {"chunk": 5}, "chunk = 5: must be even"),
    ("dual_path", {"padding": 0.7}, "padding = 0.7: must be 0.5 or 1"),
    ("dual_path", {"width": 100}, "width = 100: must be a multiple of 2 · heads = 16"),
    ("dual_path", {"core": 0}, "core = 0: must be at least 1"),
    ("dual_path", {"context": 0, "core": 8, "overlap": 0}, "core + 2 · context = 8: must be at least kernel = 16"),
    ("sfsrnet", {"frames": 0}, "frames = 0: must be at least 1"),
    ("sfsrnet", {"sources": 1}, "sources = 1: must be at least 2"),
    ("sfsrnet", {"margin": -1}, "margin = -1: must be at least 0"),
    ("sfsrnet", {"kernels": [5, 9, 11, 10]}, "kernels = [5, 9, 11, 10]: must be odd"),
    ("sfsrnet", {"kernels": [5, 9]}, "must have a kernel per width, and one more"),
    ("sfsrnet", {"hop_length": 100}, "n_fft = 512: must be a multiple of 2 · hop_length = 200"),
    ("sfsrnet", {"cutoff_hz": 8000.0}, "cutoff_hz = 8000: must be above bin 0 and below sample_rate / 2 = 8000"),
    ("sfsrnet", {"margin": 3}, "margin = 3: must be 0 or at least what the layers reach, 35 hops"),
    ("speaker_encoder", {"sample_rate": 7000}, "sample_rate = 7000: must be at least 7600"),
    ("speaker_encoder", {"dilations": []}, "dilations = []: must have at least one number"),
    ("speaker_encoder", {"size": 0}, "size = 0: must be at least 1"),
    ("spectral_bwe", {"expansion": 0}, "expansion = 0: must be at least 1"),
    ("spectral_bwe", {"inputs": -1}, "inputs = -1: must be at least 0"),
    ("spectral_bwe", {"n_fft": 32, "hop_length": 16}, "n_fft = 32: must be at least 64"),
    ("spectral_bwe", {"kernel": 4}, "kernel = 4: must be odd"),
    ("spectral_bwe", {"hop_length": 500}, "n_fft = 1024: must be a multiple of 2 · hop_length = 1000"),
    ("spectral_bwe", {"fade_hz": 0.0}, "fade_hz = 0: must be above 0 and at most sample_rate / 2 - 375"),
    ("spectral_bwe", {"margin": 1}, "margin = 1: must be 0 or at least what the layers reach, 27 hops"),
    ("spectral_unet", {"layers": 0}, "layers = 0: must be at least 1"),
    ("spectral_unet", {"sources": 1}, "sources = 1: must be at least 2"),
    ("spectral_unet", {"core": 0}, "core = 0: must be at least 1"),
    ("spectral_unet", {"widths": [24, 48]}, "widths = [24, 48]: must have one number more than time_strides"),
    ("spectral_unet", {"widths": [24, 44, 96, 128]}, "widths: 44 must be below 8 or a multiple of it"),
    ("spectral_unet", {"hop_length": 100}, "n_fft = 512: must be a multiple of 2 · hop_length = 200"),
    ("spectral_unet", {"fine": 300}, "fine = 300: must be at most n_fft / 2 = 256"),
    ("spectral_unet", {"fine": 100, "group": 8}, "fine = 100: leaves 156 bins, not a multiple of group = 8"),
    ("spectral_unet", {"fine": 124, "group": 1, "n_fft": 510, "hop_length": 255}, "rows (fine bins and groups) = 255"),
    ("spectral_unet", {"hidden": 250}, "hidden = 250: must be a multiple of 2 · heads = 8"),
    ("wave_u_net", {"filters": 0}, "filters = 0: must be at least 1"),
    ("wave_u_net", {"depth": 25}, "depth = 25: must be at most 24"),
    ("wave_u_net", {"sources": 1}, "sources = 1: must be at least 2 with difference = true"),
    ("wave_u_net", {"kernel_up": 4}, "kernel_up = 4: must be odd"),
    ("wave_u_net", {"overlap": -4096}, "overlap = -4096: must be at least 0"),
    ("wave_u_net", {"core": 100}, "core = 100: must be a multiple of 2 ^ depth = 4096"),
    ("wave_u_net", {"overlap": 100}, "overlap = 100: must be a multiple of 2 ^ depth = 4096"),
    ("wave_u_net", {"filters": 10**400}, "must be below 2^31"),
]


@pytest.mark.parametrize(("name", "values", "message"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_an_impossible_value_is_named_with_its_condition(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        make_config(name, values)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["band_masks", "sfsrnet", "spectral_bwe"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_no_frequency_has_are_refused(name: str, value: float) -> None:
    field = "fade_hz" if name == "spectral_bwe" else "cutoff_hz"
    with pytest.raises(ModelError, match=field):
        make_config(name, {field: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rates": (6, 0)}, r"rates = \[6, 0\]: must be at least 1"),
        ({"kernels": (3, 4)}, r"kernels = \[3, 4\]: must be odd"),
        ({"width": 100}, r"width = 100: must be a multiple of 2 \^ \(number of rates\) = 32"),
    ],
)
def test_an_impossible_hifi_gan(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HiFiGANConfig(**values)


@pytest.mark.parametrize("hop", [0, 101])
def test_a_hop_beyond_the_core_is_refused(hop: int) -> None:
    with pytest.raises(UsageError, match=f"toy: hop = {hop} samples; must be above 0 and at most .* 100"):
        ModelSpec("toy", "separate", 8000, 1, 2, 1, window=120, context=10, hop=hop)
