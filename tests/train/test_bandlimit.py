"""train/bandlimit.py: filters by their textbook properties, and what band-limiting leaves."""

from __future__ import annotations

import pytest
import torch
from corpora import generator

from audiosr_cli.train import bandlimit
from audiosr_cli.train.bandlimit import FAMILIES, ORDERS, Degradation, band_limit, magnitude_db

RATE, LENGTH = 48000, 24000
GRID = torch.linspace(0.001, 10, 100001, dtype=torch.float64)


def at(family: str, order: int, x: float) -> float:
    return float(magnitude_db(family, order, torch.tensor([x], dtype=torch.float64)))


@pytest.mark.parametrize("order", ORDERS)
def test_filters_have_their_textbook_responses(order: int) -> None:
    level = {family: magnitude_db(family, order, GRID) for family in FAMILIES}
    inside = GRID <= 1
    assert at("butterworth", order, 1.0) == pytest.approx(-3.0103, abs=1e-3)
    assert at("butterworth", order, 10.0) == pytest.approx(-20 * order, abs=0.1)
    assert at("bessel", order, 1.0) == pytest.approx(-3.0103, abs=1e-3)
    for family in ("butterworth", "bessel"):
        assert (level[family].diff() <= 1e-9).all()  # monotonic
    for family in ("chebyshev", "elliptic"):
        assert at(family, order, 1.0) == pytest.approx(-0.5, abs=1e-6)
        assert float(level[family][inside].min()) == pytest.approx(-0.5, abs=1e-3)  # equal ripple
        assert float(level[family][inside].max()) == pytest.approx(0, abs=1e-3)
        extrema = (level[family][inside].diff().sign().diff() != 0).sum()
        assert int(extrema) == order - 1
    assert (level["chebyshev"][~inside].diff() < 0).all()
    if order >= 4:
        stop = level["elliptic"][(level["elliptic"] < -60).cummax(0).values.bool()]
        assert float(stop.max()) == pytest.approx(-60, abs=0.01)  # equal ripple there, too
        assert (level["elliptic"] < level["chebyshev"])[(GRID > 1) & (GRID < 1.05)].all()  # steeper
    assert (level["sinc"][inside] == 0).all()
    assert level["sinc"][~inside].max() <= -120


def params(**changes: float | bool | int) -> dict[str, torch.Tensor]:
    values = {"cutoff": 4000.0, "roll_off": 0.02, "resampler": False, "filter": 0, "aliased": False, "shelf_db": 0.0}
    return {
        key: torch.tensor([value])
        for key, value in (values | {"shelf_start": 0.5, "low_cutoff": 0.0} | changes).items()
    }


def response_db(degradation: dict[str, torch.Tensor]) -> torch.Tensor:
    """Level in dB of every 2 Hz of an impulse, band-limited."""
    impulse = torch.zeros(1, LENGTH)
    impulse[0, LENGTH // 2] = 1
    output = band_limit(impulse, degradation, RATE)
    assert int(output.abs().argmax()) == LENGTH // 2  # nothing is delayed
    return 20 * torch.log10(torch.fft.rfft(output)[0].abs().clamp_min(1e-6))


@pytest.mark.parametrize("family", FAMILIES)
def test_band_limit_applies_the_response(family: str) -> None:
    level = response_db(params(filter=FAMILIES.index(family) * len(ORDERS) + 3))  # order 5
    hz = torch.tensor([500, 2000, 3000, 5000, 6000, 8000])
    expected = magnitude_db(family, 5, hz.double() / 4000).float().clamp_min(-110)
    torch.testing.assert_close(level[hz // 2].clamp_min(-110), expected, atol=0.5, rtol=0)


def test_plain_is_flat_and_then_nothing() -> None:
    level = response_db(params(resampler=True, roll_off=0.1, cutoff=4000.0))
    assert level[: 3600 // 2].abs().max() < 1e-3
    assert level[3800 // 2] == pytest.approx(-6.02, abs=0.1)
    assert level[4000 // 2 :].max() < -100


def test_folding_aliases_as_decimation_does() -> None:
    time = torch.arange(LENGTH) / RATE
    wave = torch.sin(2 * torch.pi * 5000 * time)[None]
    soft = params(filter=0, aliased=True)  # Butterworth, order 2, 4 kHz: 5 kHz is down 5.4 dB
    spectrum = torch.fft.rfft(band_limit(wave, soft, RATE))[0].abs() / (LENGTH / 2)
    assert int(spectrum.argmax()) * 2 == 3000
    assert 20 * torch.log10(spectrum[1500]) == pytest.approx(at("butterworth", 2, 1.25), abs=0.1)
    assert spectrum[2500] < 1e-4


def test_a_shelf_attenuates_below_the_cutoff() -> None:
    level = response_db(params(resampler=True, cutoff=8000.0, shelf_db=-30.0, shelf_start=0.5))
    assert level[: 4000 // 2].abs().max() < 1e-3
    torch.testing.assert_close(level[5000 // 2 : 7600 // 2], torch.full((1300,), -30.0), atol=0.01, rtol=0)


def test_drawn_parameters_follow_the_config() -> None:
    settings = Degradation(
        cutoff_hz=(1000.0, 16000.0),
        common_cutoffs_hz=(4000.0,),
        common_cutoff_prob=0.3,
        resampler_prob=0.5,
        shelf_prob=0.2,
    )
    drawn = bandlimit.draw(settings, 4000, generator())
    assert set(drawn) == set(bandlimit.KEYS)
    assert drawn["cutoff"].min() >= 1000
    assert drawn["cutoff"].max() <= 16000
    assert float((drawn["cutoff"] == 4000).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float((drawn["cutoff"] < 4000).float().mean()) == pytest.approx(0.35, abs=0.03)  # log-uniform
    assert float(drawn["resampler"].float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((drawn["shelf_db"] < 0).float().mean()) == pytest.approx(0.2, abs=0.03)
    assert len(drawn["filter"].unique()) == len(FAMILIES) * len(ORDERS)
    assert not (drawn["aliased"] & drawn["resampler"]).any()


def test_silence_stays_silent() -> None:
    drawn = bandlimit.draw(Degradation(), 32, generator())
    assert band_limit(torch.zeros(32, 4800), drawn, RATE).abs().max() == 0


def test_an_unfiltered_resampler_aliases_in_full() -> None:
    settings = Degradation(common_cutoffs_hz=(4000.0,), common_cutoff_prob=1.0, unfiltered_prob=1.0, shelf_prob=0.0)
    drawn = bandlimit.draw(settings, 2, generator())
    time = torch.arange(LENGTH) / RATE
    waves = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (5000, 3500)])
    spectrum = torch.fft.rfft(band_limit(waves, drawn, RATE)).abs() / (LENGTH / 2)
    assert spectrum.argmax(1).tolist() == [1500, 1750]  # 3 and 3.5 kHz
    torch.testing.assert_close(spectrum.amax(1), torch.ones(2), rtol=0, atol=1e-3)
    torch.testing.assert_close(bandlimit.content_bandwidth(drawn), torch.full((2,), 4000.0), rtol=0.02, atol=0)


def test_a_telephone_passes_300_to_3400_hz() -> None:
    drawn = bandlimit.draw(Degradation(telephone_prob=1.0, resampler_prob=1.0, shelf_prob=0.0), 1, generator())
    level = response_db(drawn)
    assert level[: 140 // 2].max() < -60 and level[340 // 2 : 2900 // 2].abs().max() < 0.1
    assert level[3420 // 2 :].max() < -100


def test_cutoffs_lie_below_what_a_recording_has() -> None:
    bandwidth = torch.tensor([7520.0, 24000.0]).repeat(2000)
    settings = Degradation(cutoff_hz=(1000.0, 20000.0), common_cutoff_prob=0.4, bandwidth_share=0.8)
    cutoff = bandlimit.draw(settings, 4000, generator(), bandwidth)["cutoff"].view(2000, 2)
    assert cutoff[:, 0].max() <= 0.8 * 7520 + 1 and cutoff.min() >= 1000
    assert cutoff[:, 1].max() > 15000
    low = (cutoff[:, 0] < 2450).float().mean()  # 2453 Hz is the middle of 1000 to 6016 in octaves
    assert 0.3 < float(low) < 0.7


def test_new_degradations_are_off_by_default() -> None:
    """They draw nothing then, so a run without them has the batches that it always had."""
    state = generator()
    drawn = bandlimit.draw(Degradation(), 8, state, torch.full((8,), 7520.0))
    assert (drawn["low_cutoff"] == 0).all() and drawn["cutoff"].max() > 6100
    plain = generator()
    bandlimit.draw(Degradation(), 8, plain)
    assert torch.equal(state.get_state(), plain.get_state())
