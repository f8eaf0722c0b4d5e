"""train/pairs.py: partners by difficulty."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from corpora import generator, voices
from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.models import make_config
from audiosr_cli.train import mixing
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.pairs import PairDifficulty, PairSampling
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.tasks import Recordings, Separation

SPEC = make_config("dual_path", {"context": 0}).spec
COLD = PairSampling(candidates=8, temperature_db=(1.0, 1.0), ema_decay=0.5)


def observe(pairs: PairDifficulty, rows: list[tuple[list[int], float]], counts: bool = True) -> None:
    """A step with these mixtures: their speakers, and how hard they were."""
    speakers = torch.tensor([people for people, _ in rows])
    pairs.observe(speakers, torch.full((len(rows),), counts), torch.tensor([loss for _, loss in rows]), Ranks())


def settled(rows: list[tuple[list[int], float]], config: PairSampling = COLD, times: int = 30) -> PairDifficulty:
    pairs = PairDifficulty(config)
    for _ in range(times):
        observe(pairs, rows)
    return pairs


def partners(pairs: PairDifficulty, corpus: Corpus, anchor: int) -> Counter[int]:
    drawn: Tensor = pairs.choose(corpus, 4000, 2, generator())
    return Counter(drawn[drawn[:, 0] == anchor][:, 1].tolist())


def test_without_observations_partners_are_drawn_by_chance() -> None:
    corpus = voices(4, 0.1)
    drawn = PairDifficulty(COLD).choose(corpus, 4000, 2, generator())
    assert (drawn[:, 0] != drawn[:, 1]).all()
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == 12 and all(abs(count - 333) < 80 for count in counts.values())


def test_anchors_stay_as_likely_as_the_corpus_has_them() -> None:
    corpus = replace(voices(4, 0.1), speaker_probs=torch.tensor([0.1, 0.2, 0.3, 0.4]))
    pairs = settled([([0, 1], 8.0), ([2, 3], -8.0)])
    share = pairs.choose(corpus, 8000, 2, generator())[:, 0].bincount() / 8000
    torch.testing.assert_close(share, corpus.speaker_probs, atol=0.02, rtol=0)


def test_partners_are_drawn_by_the_softmax_of_difficulty() -> None:
    corpus = voices(4, 0.1)
    pairs = settled([([0, 1], 2.0), ([0, 2], 1.0), ([0, 3], 0.0)])
    level = [pairs.difficulty(0, other) for other in (1, 2, 3)]
    assert (level[0] - level[1], level[1] - level[2]) == pytest.approx((1.0, 1.0), abs=0.1)
    counts = partners(pairs, corpus, 0)
    expected = torch.tensor(level).softmax(0)
    share = torch.tensor([counts[other] for other in (1, 2, 3)]) / sum(counts.values())
    torch.testing.assert_close(share, expected, atol=0.05, rtol=0)


def test_a_hard_partner_comes_back_among_many_speakers() -> None:
    """By chance it would come once in 200 times; its candidates are few, but it was seen."""
    corpus = voices(200, 0.02)
    pairs = PairDifficulty(PairSampling(candidates=4, temperature_db=(1.0, 1.0), ema_decay=0.0))
    for step in range(100):
        observe(pairs, [([7, 8], 6.0), ([2 * step % 200, (2 * step + 1) % 200], 0.0)])
    counts = partners(pairs, corpus, 7)
    assert counts[8] > 0.5 * sum(counts.values()) > 0


def test_pairs_never_seen_are_judged_by_their_speakers() -> None:
    pairs = settled([([0, 1], 4.0), ([2, 3], 0.0)])
    assert pairs.difficulty(0, 2) == pytest.approx(pairs.speakers[0] + pairs.speakers[2])
    assert pairs.difficulty(0, 4) > 0.5 > 0 > pairs.difficulty(2, 4)
    assert pairs.difficulty(4, 5) == 0
    observe(pairs, [([2, 0], 10.0)])
    before = pairs.difficulty(0, 2)
    observe(pairs, [([4, 5], 0.0)])  # the one before is learned now
    assert pairs.difficulty(0, 2) == pytest.approx(0.5 * before + 0.5 * (10.0 - pairs.level))


def test_difficulty_is_relative_to_the_current_loss() -> None:
    pairs = settled([([0, 1], 20.0), ([2, 3], 20.0)])
    for _ in range(500):
        observe(pairs, [([2, 3], -5.0), ([4, 5], -5.0)])
    assert abs(pairs.difficulty(0, 1)) < 1


def test_the_temperature_falls_geometrically() -> None:
    pairs = PairDifficulty(PairSampling(4, (20.0, 5.0), anneal_steps=10))
    seen = []
    for _ in range(13):
        seen.append(pairs.temperature_db)
        observe(pairs, [([0, 1], 0.0)])
    assert (seen[0], seen[10], seen[12]) == (20.0, 5.0, 5.0)
    assert seen[5] == pytest.approx(10.0)


def test_observations_count_two_steps_later() -> None:
    pairs = PairDifficulty(COLD)
    observe(pairs, [([0, 1], 3.0), ([0, 2], 1.0)])
    assert not pairs.partners
    observe(pairs, [([0, 3], 3.0)])
    assert set(pairs.partners[0]) == {1, 2}


def test_mixtures_that_say_nothing_are_left_out() -> None:
    pairs = settled([([0, 1], float("nan")), ([2, 3], float("inf"))])
    observe(pairs, [([0, 1], 5.0)], counts=False)
    observe(pairs, [([0, 1], 5.0)], counts=False)
    assert not pairs.partners and not pairs.observed


def test_three_speakers_are_three_pairs() -> None:
    pairs = settled([([0, 1, 2], 6.0), ([3, 4, 5], 0.0)], times=4)
    assert {(a, b) for a in pairs.partners for b in pairs.partners[a] if a < b} == {
        (0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5),
    }  # fmt: skip
    drawn = pairs.choose(voices(6, 0.1), 50, 3, generator())
    assert all(len(set(row)) == 3 for row in drawn.tolist())


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_a_resumed_difficulty_continues_identically() -> None:
    """Even what was still on its way comes along; a draw depends on its generator and on that alone."""
    corpus = voices(12, 0.1)
    rows = [([i, (i * 5 + 1) % 12], float(i)) for i in range(12) if (i * 5 + 1) % 12 != i]
    whole = settled(rows, times=3)
    whole.choose(corpus, 4, 2, generator())
    resumed = PairDifficulty(COLD)
    resumed.load(through_a_file(whole.state()))
    for pairs in (whole, resumed):
        observe(pairs, [([0, 1], -3.0)])
        observe(pairs, [([0, 2], -3.0)])
    for seed in range(3):
        draws = [pairs.choose(corpus, 64, 2, generator(seed)) for pairs in (whole, whole, resumed)]
        assert torch.equal(draws[0], draws[1]) and torch.equal(draws[0], draws[2])
    assert not torch.equal(
        whole.choose(corpus, 64, 2, generator(3)), PairDifficulty(COLD).choose(corpus, 64, 2, generator(3))
    )


def test_other_speakers_are_met_without_prejudice() -> None:
    pairs = settled([([0, 1], 6.0), ([2, 3], 0.0)])
    pairs.choose(voices(4, 0.1), 4, 2, generator())
    resumed = PairDifficulty(COLD)
    resumed.load(through_a_file(pairs.state()))
    resumed.choose(voices(4, 0.1), 4, 2, generator())
    assert resumed.partners
    resumed.choose(voices(5, 0.1), 4, 2, generator())
    assert not resumed.partners and not resumed.speakers


def test_only_mixtures_in_which_all_speak_all_the_time_are_judged() -> None:
    diet = Mixing(turns_prob=0.5, silent_source_prob=0.3, padded_prob=0.2, overlap=(0.0, 0.5), speed_perturbation=0.0)
    params = mixing.draw(diet, voices(4), 2, 200, 8000, generator())
    always = mixing.fully_overlapped(params, 8000)
    _, sources = mixing.render(params, voices(4), 8000, torch.device("cpu"))
    silent = (sources.unflatten(-1, (400, 20)).square().mean(-1) < 1e-12).any(-1).any(-1)
    assert 20 < int(always.sum()) < 100
    assert torch.equal(always, ~silent)


def test_batches_with_pairs_name_their_speakers_and_losses_their_items() -> None:
    recordings = Recordings(voices(4), voices(3))
    task = Separation(SPEC, 3, 0.5, pair_sampling=PairSampling(candidates=2))
    batch = task.batch(recordings, generator(), Ranks())
    assert batch["speakers"].shape == (3, 2) and batch["overlapped"].all()
    losses = task.losses(lambda _: batch["target"].flip(1).unsqueeze(2) + 0.1 * batch["input"].unsqueeze(1), batch)
    assert losses.items is not None and losses.items.shape == (3,)
    assert float(losses.items.mean()) == pytest.approx(float(sum(losses.terms.values())))
    plain = Separation(SPEC, 3, 0.5)
    batch = plain.batch(recordings, generator(), Ranks())
    assert (
        set(batch) == {"input", "target"} and plain.losses(lambda _: batch["target"].unsqueeze(2), batch).items is None
    )


def test_options_that_make_no_sense_are_refused() -> None:
    for values, message in (
        ({"temperature_db": (2.0, 20.0)}, "the higher value first"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"candidates": -1}, "candidates"),
        ({"anneal_steps": 0}, "anneal_steps"),
    ):
        with pytest.raises(UsageError, match=message):
            PairSampling(**values)
