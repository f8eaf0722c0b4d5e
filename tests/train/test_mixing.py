"""train/mixing.py: levels, turns, silence, rooms, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corpora import corpus_of, generator, voices

from audiosr_cli.train import mixing
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.reverb import impulse_responses

LENGTH, COUNT, CPU = 4000, 64, torch.device("cpu")
VOICES = voices(5)


def mixed(settings: Mixing, sources: int = 2, **more: object) -> tuple[torch.Tensor, torch.Tensor]:
    params = mixing.draw(settings, VOICES, sources, COUNT, LENGTH, generator(), **more)
    return mixing.render(params, VOICES, LENGTH, CPU, **more)


def level_db(waves: torch.Tensor) -> torch.Tensor:
    return 10 * waves.square().mean(-1).log10()


@pytest.mark.parametrize("sources", [2, 3])
def test_levels_follow_the_config_and_sources_sum_to_the_mixture(sources: int) -> None:
    mix, parts = mixed(Mixing(level_spread_db=5.0, level_db=(-30.0, -10.0)), sources)
    assert parts.shape == (COUNT, sources, LENGTH)
    torch.testing.assert_close(parts.sum(1), mix, atol=1e-6, rtol=0)
    level = level_db(parts)
    assert (level.amax(1) - level.amin(1)).max() < 5.5  # within the spread, noise's own level aside
    assert (level[:, 0] - level[:, 1]).abs().max() > 3
    whole = level_db(mix)
    assert whole.min() > -30.1
    assert whole.max() < -9.9
    assert whole.max() - whole.min() > 15


def test_every_source_has_its_own_random_polarity() -> None:
    """Recordings that lie above zero throughout: their signs tell."""
    corpus = corpus_of(
        [np.full(8000, 0.1) + 0.05 * np.random.default_rng(i).random(8000) for i in range(5)], [*range(5)]
    )
    params = mixing.draw(Mixing(), corpus, 2, COUNT, LENGTH, generator())
    _, parts = mixing.render(params, corpus, LENGTH, CPU)
    inverted = parts.mean(-1) < 0  # (B, S)
    assert 0.3 < float(inverted.float().mean()) < 0.7
    assert 0.3 < float((inverted[:, 0] == inverted[:, 1]).float().mean()) < 0.7  # nor is it the other's


def test_every_batch_is_another_and_every_seed_the_same() -> None:
    settings = Mixing()
    first, second = (mixing.draw(settings, VOICES, 2, 8, LENGTH, generator(seed)) for seed in (1, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = mixing.draw(settings, VOICES, 2, 8, LENGTH, generator(2))
    assert not torch.equal(first["first"], other["first"])


@pytest.mark.parametrize(("overlap", "shared"), [(1.0, 1.0), (0.5, 1 / 3), (0.0, 0.0), (-0.5, 0.0)])
def test_turns_overlap_by_the_configured_share(overlap: float, shared: float) -> None:
    _, parts = mixed(Mixing(turns_prob=1.0, overlap=(overlap, overlap)))
    speaks = parts != 0
    both = speaks.all(1).float().mean(-1)
    assert float(both.mean()) == pytest.approx(shared, abs=0.03)
    each = speaks.float().mean(-1)
    assert float((each[:, 0] - each[:, 1]).abs().max()) < 0.03  # turns of equal length
    none = (~speaks.any(1)).float().mean()
    assert float(none) == pytest.approx(0.2 if overlap < 0 else 0.0, abs=0.03)
    first = speaks.float().argmax(-1).argmin(1).float().mean()
    if overlap < 1:
        assert 0.3 < float(first) < 0.7  # either may begin


def test_shifted_turns_are_of_any_length_and_leave_no_end_silent() -> None:
    _, parts = mixed(Mixing(turns_prob=1.0, overlap=(0.3, 0.3), turn_shift=0.5))
    speaks = parts != 0
    assert float(speaks.all(1).float().mean()) == pytest.approx(0.3 / 1.7, abs=0.03)  # as without
    assert speaks.any(1)[:, [1, -2]].all()
    each = speaks.float().mean(-1)
    assert float(each.max()) > 0.8
    assert float(each.min()) < 0.35


def test_short_mixtures_lie_in_silence() -> None:
    mix, parts = mixed(Mixing(padded_prob=0.5))
    speaks = (mix != 0).float()
    share = speaks.mean(-1)
    whole = share > 0.95
    assert 0.3 < float(whole.float().mean()) < 0.7
    assert float(share.min()) > 0.25
    assert float(share[~whole].max() - share[~whole].min()) > 0.4
    edges = (speaks.diff(dim=-1) != 0).sum(-1)
    assert edges.max() <= 2  # in one piece
    torch.testing.assert_close(parts.sum(1), mix, atol=1e-6, rtol=0)


def test_absent_sources_are_exactly_silent_and_never_all() -> None:
    _, parts = mixed(Mixing(silent_source_prob=0.5), 3)
    silent = (parts == 0).all(-1)
    assert 0.2 < float(silent.float().mean()) < 0.5
    assert not silent.all(1).any()


def test_rooms_change_sources_and_keep_the_sum() -> None:
    rirs = impulse_responses(4, 4, 8000, generator())
    dry, _ = mixed(Mixing(reverb_prob=0.0), rirs=rirs)
    wet, parts = mixed(Mixing(reverb_prob=1.0), rirs=rirs)
    half, _ = mixed(Mixing(reverb_prob=0.5), rirs=rirs)
    torch.testing.assert_close(parts.sum(1), wet, atol=1e-5, rtol=0)
    assert ((dry - wet).abs().amax(-1) > 0.01).all()
    same = torch.isclose(dry, half, atol=1e-5).all(-1)
    assert 10 < int(same.sum()) < 54


def test_noise_has_the_configured_snr() -> None:
    settings = Mixing(noise_prob=0.5, snr_db=(10.0, 10.0), level_db=(-20.0, -20.0))
    mix, parts = mixed(settings, noise=voices(2))
    rest = mix - parts.sum(1)
    clean = rest.abs().amax(-1) < 1e-6
    assert 16 < int(clean.sum()) < 48
    snr = (level_db(parts.sum(1)) - level_db(rest))[~clean]
    torch.testing.assert_close(snr, torch.full_like(snr, 10.0), atol=0.01, rtol=0)
    torch.testing.assert_close(level_db(mix), torch.full((COUNT,), -20.0), atol=0.01, rtol=0)


def test_a_part_of_a_recipe_renders_to_a_part_of_the_batch() -> None:
    params = mixing.draw(Mixing(), VOICES, 2, 8, LENGTH, generator())
    mix, _ = mixing.render(params, VOICES, LENGTH, CPU)
    half, _ = mixing.render({key: value[4:] for key, value in params.items()}, VOICES, LENGTH, CPU)
    torch.testing.assert_close(half, mix[4:], atol=1e-6, rtol=0)


def test_sources_without_late_reflections_in_the_same_mixtures() -> None:
    rirs = torch.zeros(1, 2, 1000)
    rirs[..., 0], rirs[..., 100], rirs[..., 900] = 1.0, 0.5, 0.25
    settings = Mixing(reverb_prob=0.5, level_db=(-20.0, -20.0))
    params = mixing.draw(settings, VOICES, 2, COUNT, LENGTH, generator(), None, rirs)
    mix, whole = mixing.render(params, VOICES, LENGTH, CPU, None, rirs)
    same, early = mixing.render(params, VOICES, LENGTH, CPU, None, rirs, reflections_s=100 / 8000)
    torch.testing.assert_close(same, mix)
    dry = params["room"] < 0
    torch.testing.assert_close(early[dry], whole[dry])
    # What is missing is the last reflection of the direct sound, 900 samples later, and nothing else.
    _, direct = mixing.render(params, VOICES, LENGTH, CPU, None, rirs, reflections_s=0.0)
    late = torch.zeros_like(early)
    late[..., 900:] = 0.25 * direct[..., :-900]
    torch.testing.assert_close((whole - early)[~dry], late[~dry], atol=1e-5, rtol=0)
    assert ((whole - early)[~dry].abs().amax(-1) > 1e-3).all()
