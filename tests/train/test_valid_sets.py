"""train/tasks/valid_sets.py: the same mixtures for everyone, at any rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import halves
from corpora import corpus_of, generator, voices

from audiosr_cli.dsp.metrics import si_sdr
from audiosr_cli.dsp.spectra import change_rate
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.data import load_corpus, read_table
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.reverb import impulse_responses
from audiosr_cli.train.tasks import Recordings, Separation, valid_sets
from audiosr_cli.train.tasks.valid_sets import (
    SETS,
    ValidSet,
    clip_length,
    render_set,
    separate_mixtures,
    si_sdr_improvement,
)

CPU, RATE = torch.device("cpu"), 8000
VALID, NOISE = voices(3, 7.0), voices(2, 3.0)


def test_the_selecting_score_does_not_change() -> None:
    """Scores of months are compared: 40 mixtures, this seed, no turns, noise or rooms."""
    assert SETS["plain"] == ValidSet(40, 20261120, Mixing(speed_perturbation=0.0, level_db=(-20.0, -20.0)))
    model = halves()
    task = Separation(model.spec, 2, 0.5)
    assert task.score(model, Recordings(VALID, VALID)) == valid_sets.set_improvement("plain", model, VALID)


@pytest.mark.parametrize("name", sorted(SETS))
def test_mixtures_improve_by_nothing_and_sources_by_all(name: str) -> None:
    mix, parts = render_set(name, VALID, 2, 8192, CPU, NOISE)
    assert mix.shape == (SETS[name].count, 8192)
    assert si_sdr_improvement(torch.stack([mix, mix], 1), mix, parts) == pytest.approx(0.0, abs=1e-3)
    assert si_sdr_improvement(parts.flip(1), mix, parts) > 50
    again, _ = render_set(name, VALID, 2, 8192, CPU, NOISE)
    assert torch.equal(again, mix)


def test_each_set_matches_its_name() -> None:
    mix, parts = {}, {}
    for name in SETS:
        mix[name], parts[name] = render_set(name, VALID, 2, 40960, CPU, NOISE)
    for name in ("plain", "turns", "rooms"):
        torch.testing.assert_close(parts[name].sum(1), mix[name], atol=1e-5, rtol=0)
    rest = mix["noise"] - parts["noise"].sum(1)
    snr = 10 * torch.log10(parts["noise"].sum(1).square().sum(-1) / rest.square().sum(-1))
    assert 5 <= float(snr.min()) < 9 and 16 < float(snr.max()) <= 20.01
    speaks = parts["turns"] != 0
    assert float(speaks.float().mean(-1).min()) * 5.12 > 1.4  # seconds, of either
    both = speaks.all(1).float().mean(-1)
    assert float(both.min()) == 0 and float(both.max()) > 0.6
    assert (parts["plain"] != 0).float().mean() > 0.99
    whiteness = {name: _correlation(parts[name]) for name in ("plain", "rooms")}  # of voices that are white noise
    assert whiteness["plain"] < 0.03 < 0.1 < whiteness["rooms"]


def _correlation(waves: torch.Tensor) -> float:
    """How much neighbours in time have in common, up to 20 ms apart."""
    spectrum = torch.fft.rfft(waves, 2 * waves.shape[-1]).abs().square()
    own = torch.fft.irfft(spectrum)
    return float((own[..., 1:160].abs().amax(-1) / own[..., 0]).median())


def at_two_rates(count: int, seed: int) -> tuple[Corpus, Corpus]:
    """The same slow voices at 16 and at 8 kHz."""
    corners = 0.1 * np.random.default_rng(seed).standard_normal((count, 3500))
    waves = [np.interp(np.arange(112000) / 32, np.arange(3500), each).astype(np.float32) for each in corners]
    return corpus_of(waves, list(range(count)), 16000), corpus_of(
        [wave[::2] for wave in waves], list(range(count)), 8000
    )


@pytest.mark.parametrize("name", sorted(SETS))
def test_mixtures_are_the_same_at_two_rates(name: str) -> None:
    """From a corpus at the lower rate to a sample of it, resampled from the higher one exactly."""
    (high, low), (high_noise, low_noise) = at_two_rates(3, 0), at_two_rates(2, 1)
    mix_16, parts_16 = render_set(name, high, 2, 81920, CPU, high_noise)
    mix_8, parts_8 = render_set(name, high, 2, 81920, CPU, high_noise, rate=8000)
    torch.testing.assert_close(mix_8, change_rate(mix_16, 16000, 8000))
    torch.testing.assert_close(parts_8, change_rate(parts_16, 16000, 8000))
    mix, parts = render_set(name, low, 2, 40960, CPU, low_noise)
    assert si_sdr(mix, mix_8).min() > 15
    assert si_sdr(parts, parts_8).min() > 15


def test_valid_rooms_are_the_same_at_every_rate_and_not_those_of_training() -> None:
    at_16, at_8 = (valid_sets._rirs(4, 2, rate) for rate in (16000, 8000))
    assert (at_16.shape[-1], at_8.shape[-1]) == (8000, 4000)
    assert (at_16.abs().argmax(-1) == 0).any()
    lower = change_rate(at_16, 16000, 8000)
    assert si_sdr(lower[..., 40:-40], at_8[..., 40:-40]).min() > 20
    training = impulse_responses(128, 4, 16000, torch.Generator().manual_seed(20261120))
    assert (training[:, :1, :800] - at_16[0, :1, :800]).norm(dim=-1).min() > 0.1


def test_a_run_logs_scores_on_hard_mixtures() -> None:
    model = halves()
    task = Separation(model.spec, 2, 0.5)
    names = {"SI-SDRi turns (dB)", "SI-SDRi noise (dB)", "SI-SDRi rooms (dB)"}
    with_noise = task.extra_scores(model, Recordings(VALID, VALID, valid_noise=NOISE))
    assert set(with_noise) == names
    assert set(task.extra_scores(model, Recordings(VALID, VALID, noise=NOISE))) == names - {"SI-SDRi noise (dB)"}
    assert all(abs(value) < 1e-3 for value in with_noise.values())  # each source is half the mixture


def test_models_without_context_get_whole_windows() -> None:
    model = halves()
    assert clip_length(model.spec) == 40960
    assert clip_length(replace(model.spec, context=0, window=30000)) == 30000
    seen = []
    model.spec = replace(model.spec, context=0, window=3000)
    model.forward = lambda x: (seen.append(x.shape[-1]), x.unsqueeze(1).expand(-1, 2, -1, -1))[1]  # type: ignore
    mix = torch.randn(5, 4000, generator=generator())
    assert torch.equal(separate_mixtures(model, mix), torch.stack([mix, mix], 1))
    assert set(seen) == {6000}


def test_everybody_speaks_in_the_real_sets(data: Path, tmp_path: Path) -> None:
    """No source is nearly silent, where SI-SDR means nothing."""
    table = read_table(data / "manifest.csv")
    valid = load_corpus([data / "speech16k" / "valid"], RATE, tmp_path, table)
    noise = load_corpus([data / "noise48k" / "valid"], RATE, tmp_path, table)
    for name in SETS:
        mix, parts = render_set(name, valid, 2, 40960, CPU, noise)
        level = 10 * torch.log10(parts.square().mean(-1) / mix.square().mean(-1, keepdim=True))
        assert level.min() > -20
