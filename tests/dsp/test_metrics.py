"""dsp/metrics.py: metrics of signals whose values are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from audiosr_cli.dsp.metrics import best_order, equal_error_rate, gain_db, lag, lsd, lsd_ssr_eval, sdr, si_sdr, snr


def orthogonal(length: int = 8000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two orthogonal zero-mean signals of equal power."""
    time = torch.arange(length) / length
    return torch.sin(2 * math.pi * 40 * time), torch.cos(2 * math.pi * 40 * time)


@pytest.mark.parametrize("ratio_db", [-10.0, 0.0, 25.0])
@pytest.mark.parametrize("gain", [1.0, -0.3, 40.0])
def test_si_sdr_ignores_gain_and_offset(ratio_db: float, gain: float) -> None:
    signal, noise = orthogonal()
    estimate = gain * (signal + noise * 10 ** (-ratio_db / 20)) + 0.2
    torch.testing.assert_close(si_sdr(estimate, signal), torch.tensor(ratio_db), rtol=0, atol=1e-3)


def test_snr_counts_gain() -> None:
    signal, noise = orthogonal()
    torch.testing.assert_close(snr(signal + 0.1 * noise, signal), torch.tensor(20.0), rtol=0, atol=1e-3)
    torch.testing.assert_close(snr(0.5 * signal, signal), torch.tensor(20 * math.log10(2)), rtol=0, atol=1e-3)


def test_best_order_undoes_a_permutation() -> None:
    reference = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
    order = [2, 0, 1]
    estimate = 0.1 * reference[order]
    torch.testing.assert_close(estimate[list(best_order(estimate, reference))], 0.1 * reference)


@pytest.mark.parametrize("gain_db", [0.0, -6.0, 20.0])
def test_lsd_of_a_gain(gain_db: float) -> None:
    """A gain moves the log10 power of every bin by gain_db / 10, in both definitions."""
    wave = torch.randn(48000, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor(abs(gain_db) / 10)
    louder = wave * 10 ** (gain_db / 20)
    torch.testing.assert_close(lsd(louder, wave), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(lsd_ssr_eval(louder, wave, 48000), expected, rtol=0, atol=1e-3)


def test_lsd_is_limited_to_its_band() -> None:
    """Content that is missing in the upper half raises the distance in that half only."""
    wave = torch.randn(48000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(wave)
    spectrum[len(spectrum) // 2 :] = 0
    half = torch.fft.irfft(spectrum, 48000)
    assert lsd(half, wave, high=0.45) < 0.1
    assert lsd(half, wave, low=0.55) > 3


def test_only_lsd_has_a_floor_for_silence() -> None:
    """With AP-BWE's floor, quiet noise and digital silence are close; with ssr_eval's quotient they are not."""
    quiet = 1e-6 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    silence = torch.zeros(48000)
    assert lsd(silence, quiet) < 0.01
    assert lsd_ssr_eval(silence, quiet, 48000) > 5


def test_sdr_ignores_filtering_and_counts_interference() -> None:
    generator = torch.Generator().manual_seed(0)
    reference, other = torch.randn(2, 16000, generator=generator)
    filtered = 0.5 * reference.roll(3) - 0.2 * reference.roll(40)
    filtered[:64] = 0
    assert float(sdr(filtered, reference)) > 20  # the first samples differ
    assert float(si_sdr(filtered, reference)) < 0
    mixed = reference + other * 10 ** (-10 / 20)
    torch.testing.assert_close(sdr(mixed, reference), torch.tensor(10.0), rtol=0, atol=0.3)  # 512 of 16000 are fitted
    assert sdr(torch.zeros(2, 4000), torch.zeros(2, 4000)).isfinite().all()


def test_sdr_of_a_batch_equals_that_of_each_with_two_threads() -> None:
    estimates, references = torch.randn(2, 3, 4000, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([sdr(*pair) for pair in zip(estimates, references, strict=True)])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.testing.assert_close(sdr(estimates, references), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("late", [0, 7, -7, 1000])
@pytest.mark.parametrize("gain", [1.0, -0.5])
def test_lag_of_a_delayed_wave(late: int, gain: float) -> None:
    wave = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    wave[:1000] = wave[-1000:] = 0  # so that nothing wraps around
    assert lag(gain * wave.roll(late), wave) == late


@pytest.mark.parametrize("gain", [1.0, 0.5, -2.0])
def test_gain_ignores_added_noise(gain: float) -> None:
    signal, noise = orthogonal()
    expected = torch.tensor(20 * math.log10(abs(gain)))
    torch.testing.assert_close(gain_db(gain * signal + noise, signal), expected, rtol=0, atol=1e-3)


def test_lsd_ssr_eval_is_limited_to_its_band() -> None:
    """A gain counts equally in every band; content missing in the upper half does not count in the lower."""
    wave = torch.randn(48000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lsd_ssr_eval(2 * wave, wave, 48000, 0.5), torch.tensor(0.602), rtol=0, atol=1e-3)
    spectrum = torch.fft.rfft(wave)
    spectrum[len(spectrum) // 2 :] = 0
    half = torch.fft.irfft(spectrum, 48000)
    assert lsd_ssr_eval(half, wave, 48000, high=0.45) < 0.2
    assert lsd_ssr_eval(half, wave, 48000, low=0.55) > 3


@pytest.mark.parametrize(
    ("degrees", "rate"),
    [([0, 10, 90, 100], 0.0), ([0, 10, 6, 90], 0.5)],  # own pairs 10 and 84 apart, strangers 4, 6, 80 and 90
    ids=["apart", "mixed"],
)
def test_equal_error_rate_is_where_both_errors_are_equal(degrees: list[float], rate: float) -> None:
    angle, labels = torch.tensor(degrees).deg2rad(), torch.tensor([0, 0, 1, 1])
    vectors = torch.stack([angle.cos(), angle.sin()], 1)
    assert equal_error_rate(vectors, labels) == pytest.approx(rate)
    assert math.isnan(equal_error_rate(vectors, labels * 0))
    assert math.isnan(equal_error_rate(vectors, torch.arange(4)))
