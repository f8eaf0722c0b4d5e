"""train/losses.py: assignments, silent sources, spectral distances, masks."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from corpora import generator

from audiosr_cli.dsp.metrics import lsd, si_sdr, snr
from audiosr_cli.dsp.spectra import low_pass
from audiosr_cli.train.losses import (
    best_permutation,
    complex_stft,
    hungarian,
    log_mel,
    log_spectral,
    multi_resolution_stft,
    multi_stage,
    pit,
    si_snr_and_level,
    thresholded_si_snr,
    thresholded_snr,
)

SPECTRAL = (log_spectral, multi_resolution_stft, complex_stft, log_mel)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


@pytest.mark.parametrize("sources", [2, 3, 5, 6])
def test_pit_finds_the_order(sources: int) -> None:
    reference = randn(4, sources, 1000)
    order = torch.randperm(sources, generator=generator(2))
    estimate = reference[:, order] + 0.1 * randn(4, sources, 1000, seed=1)
    assert float(pit(estimate, reference, snr)) == pytest.approx(-20, abs=0.5)
    assert float(pit(estimate, reference, snr, best_db=5.0)) == -5.0
    assert torch.equal(best_permutation(torch.eye(sources)[order][None])[0], order.argsort())


def test_hungarian_is_as_cheap_as_the_best_of_all_orders() -> None:
    for size in (1, 2, 3, 4, 5, 6):
        for seed in range(30):
            cost = randn(size, size, seed=seed).double()
            if seed % 3 == 0:
                cost = cost.round()  # ties
            assignment = hungarian(cost.tolist())
            assert sorted(assignment) == list(range(size))
            best = min(sum(float(cost[i, j]) for i, j in enumerate(order)) for order in permutations(range(size)))
            assert sum(float(cost[i, j]) for i, j in enumerate(assignment)) == pytest.approx(best, abs=1e-9)


def test_pit_passes_gradients_to_the_chosen_pairs() -> None:
    reference = randn(2, 2, 500)
    estimate = (reference.flip(1) + 0.5 * randn(2, 2, 500, seed=1)).requires_grad_()
    pit(estimate, reference, si_sdr).backward()
    assert torch.isfinite(estimate.grad).all()
    assert (estimate.grad.abs().amax(-1) > 0).all()


def test_a_silent_source_rewards_a_silent_estimate() -> None:
    reference = randn(1, 2, 1000)
    reference[:, 1] = 0
    quiet = torch.stack([reference[:, 0], 0.001 * randn(1, 1000, seed=1)], 1)
    loud = torch.stack([reference[:, 0], 0.5 * randn(1, 1000, seed=1)], 1)
    assert float(pit(loud, reference, si_sdr, 100.0)) > float(pit(quiet, reference, si_sdr, 100.0)) + 10
    swapped = quiet.flip(1)
    assert float(pit(swapped, reference, si_sdr)) == pytest.approx(float(pit(quiet, reference, si_sdr)))
    quiet.requires_grad_()
    pit(quiet, reference, si_sdr, 100.0).backward()
    assert torch.isfinite(quiet.grad).all()
    assert (quiet.grad[0, 1] * quiet[0, 1].detach()).sum() > 0  # quieter is better


def test_silence_all_over_has_finite_gradients() -> None:
    estimate = torch.zeros(1, 2, 500, requires_grad=True)
    pit(estimate, torch.zeros(1, 2, 500), si_snr_and_level).backward()
    assert torch.isfinite(estimate.grad).all()


def test_level_counts_a_tenth() -> None:
    reference = randn(1, 1000)
    estimate = reference + 0.1 * randn(1, 1000, seed=1)
    plain = si_sdr(10 * estimate, reference)
    assert float(plain - si_snr_and_level(10 * estimate, reference)) == pytest.approx(2.0, abs=0.02)


def test_upside_down_counts() -> None:
    reference = randn(1, 1000)
    estimate = reference + 0.1 * randn(1, 1000, seed=1)
    assert float(si_sdr(-estimate, reference)) == pytest.approx(float(si_sdr(estimate, reference)), abs=1e-3)
    lost = si_snr_and_level(estimate, reference) - si_snr_and_level(-estimate, reference)
    assert float(lost) == pytest.approx(10.0, abs=0.1)
    silent = torch.zeros(1, 1000, requires_grad=True)
    si_snr_and_level(silent, reference).sum().backward()
    assert silent.grad is not None
    assert silent.grad.isfinite().all()


def test_thresholds_saturate() -> None:
    reference = randn(1000)
    for noise, expected in ((1.0, 0.0), (0.0, 30.0)):
        estimate = reference + noise * randn(1000, seed=1)
        assert float(thresholded_snr(estimate, reference)) == pytest.approx(expected, abs=0.5)
        assert float(thresholded_si_snr(2 * estimate, reference)) == pytest.approx(expected, abs=0.5)


def test_stages_are_averaged() -> None:
    reference = randn(1, 2, 100)
    loss = multi_stage([reference, 0 * reference], [reference, reference], lambda a, b: (a - b).abs().mean())
    assert float(loss) == pytest.approx(float(reference.abs().mean()) / 2)


@pytest.mark.parametrize("distance", SPECTRAL)
def test_spectral_losses_are_zero_for_equals_and_grow(distance: object) -> None:
    wave = 0.1 * randn(2, 12000)
    zero = float(distance(wave, wave, 48000))
    assert zero <= 0.0101  # log_spectral's root is rounded off at 0.01
    near, far = (float(distance(wave + g * 0.1 * randn(2, 12000, seed=1), wave, 48000)) for g in (0.1, 1.0))
    assert zero < near < far


def test_log_spectral_is_the_metric() -> None:
    wave, other = 0.1 * randn(1, 24000), 0.1 * randn(1, 24000, seed=1)
    assert float(log_spectral(other, wave, 48000)) == pytest.approx(float(lsd(other[0], wave[0])), abs=0.01)


@pytest.mark.parametrize("distance", SPECTRAL)
def test_nothing_above_the_band_counts(distance: object) -> None:
    wave = 0.1 * randn(2, 12000)
    cutoff, roll_off = torch.full((2,), 7000.0), torch.full((2,), 0.05)
    estimate = wave + 0.02 * randn(2, 12000, seed=1)
    other = low_pass(estimate, cutoff, roll_off, 48000) + 0.5 * (wave - low_pass(wave, cutoff, roll_off, 48000))
    band = torch.full((2,), 6000.0)
    estimate.requires_grad_()
    masked = distance(estimate, wave, 48000, band)
    estimate_too = estimate.detach()
    assert float(masked.detach()) == pytest.approx(float(distance(other, wave, 48000, band)), rel=2e-2)
    assert abs(float(distance(estimate_too, wave, 48000)) - float(distance(other, wave, 48000))) > 0.02 * float(
        masked.detach()
    )
    masked.backward()
    level = torch.fft.rfft(estimate.grad[:, 3000:-3000]).abs().mean(0)
    share = len(level) * 8000 // 24000
    assert level[share:].mean() < 0.05 * level[: share // 2].mean()


def test_a_full_band_changes_nothing() -> None:
    wave, other = 0.1 * randn(2, 12000), 0.1 * randn(2, 12000, seed=1)
    for distance in SPECTRAL:
        full = float(distance(other, wave, 48000, torch.full((2,), 24000.0)))
        assert full == pytest.approx(float(distance(other, wave, 48000)), rel=1e-5)
