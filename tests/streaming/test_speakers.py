"""streaming/speakers.py: scale-free agreement, and orders across channels, time and pauses."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.streaming.speakers import Tracker, _Speakers, agreement

OVERLAP, STEP = 500, 1500


def waves(sources: int, length: int = 4000) -> Tensor:
    return torch.randn(sources, length, generator=torch.Generator().manual_seed(0))


def tones(sources: int, length: int) -> Tensor:
    """Source k is a tone of its own frequency, which ``pitch`` hears."""
    return torch.stack([torch.sin(torch.arange(length) * (0.2 + 0.3 * k)) for k in range(sources)])


def pitch(x: Tensor) -> Tensor:
    """A voice network for ``tones``: the spectrum in eight bands."""
    bands = torch.fft.rfft(x)[:, :-1].abs().unflatten(1, (25, -1)).mean(2)
    return F.normalize(bands, dim=1) * (x.abs().amax(1, keepdim=True) > 0)


def track(whole: Tensor, orders: list[tuple[int, ...]], tracker: Tracker) -> list[bool]:
    """Windows of ``whole`` (S, C, T), each in an order of its own, through ``tracker``: which came out in order."""
    tail, right = None, []
    for i, order in enumerate(orders):
        core = whole[..., i * STEP : (i + 1) * STEP + OVERLAP]
        made = tracker(tail, core[list(order)])
        tail = made[..., STEP:]
        right.append(torch.equal(made, core))
    return right


def test_agreement_is_free_of_level_and_polarity() -> None:
    x = waves(2)
    pairs = agreement(x, torch.stack([-0.001 * x[1], 50 * x[0]]))
    torch.testing.assert_close(pairs, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), rtol=0, atol=1e-2)


def test_silence_agrees_with_nothing() -> None:
    x = waves(2)
    assert torch.equal(agreement(x, torch.zeros_like(x)), torch.zeros(2, 2))
    assert torch.equal(agreement(x, x, (0.0, 2.0)), torch.zeros(2, 2))


@pytest.mark.parametrize("sources", [2, 3, 4])
def test_overlaps_tell_the_order(sources: int) -> None:
    draw = random.Random(sources)
    orders = [tuple(range(sources)), *(draw.choice(list(permutations(range(sources)))) for _ in range(19))]
    tracker = Tracker()
    assert all(track(waves(sources, 21 * STEP).unsqueeze(1), orders, tracker))
    assert len(tracker.confidence) == 20
    assert min(tracker.confidence) > 0.9


def test_without_evidence_the_order_stays_and_is_not_trusted() -> None:
    core = waves(2).unsqueeze(1)
    tracker = Tracker()
    assert torch.equal(tracker(None, core), core)
    assert torch.equal(tracker(torch.zeros(2, 1, OVERLAP), core), core)
    assert tracker.confidence[0] > 0.9
    for _ in range(200):
        tracker(torch.zeros(2, 1, OVERLAP), core)
    assert tracker.confidence[-1] < 0.6


def turns(sources: int, count: int, draw: random.Random) -> Tensor:
    """One speaker a window and nobody where windows overlap: (S, 1, T)."""
    whole = tones(sources, (count + 1) * STEP)
    for i in range(count):
        quiet = [k for k in range(sources) if k != (i if i < sources else draw.randrange(sources))]
        whole[quiet, i * STEP : (i + 1) * STEP] = 0
        whole[:, i * STEP : i * STEP + OVERLAP] = 0
    whole[:, count * STEP :] = 0
    return whole.unsqueeze(1)


@pytest.mark.parametrize("sources", [2, 3])
def test_after_a_pause_voices_tell(sources: int) -> None:
    draw = random.Random(sources)
    count = 30
    whole = turns(sources, count, draw)
    orders = [tuple(range(sources)), *(draw.choice(list(permutations(range(sources)))) for _ in range(count - 1))]
    speaks = [whole[:, 0, i * STEP : (i + 1) * STEP].abs().amax(1).argmax() for i in range(count)]
    tail, tracker = None, Tracker(voice=pitch)
    for i, order in enumerate(orders):
        made = tracker(tail, whole[..., i * STEP : (i + 1) * STEP + OVERLAP][list(order)])
        tail = made[..., STEP:]
        assert made[:, 0].abs().amax(1).argmax() == speaks[i], i
    assert not all(track(whole, orders, Tracker()))


def test_a_voice_is_known_again_after_a_long_silence() -> None:
    whole = tones(2, 60 * STEP).unsqueeze(1)
    whole[..., 5 * STEP : 50 * STEP] = 0
    orders = [(0, 1)] * 5 + [(1, 0), (0, 1)] * 22 + [(1, 0)] * 11
    right = track(whole, orders, Tracker(voice=pitch))
    assert all(right[:4]) and all(right[51:])


def test_voices_correct_a_wrong_turn() -> None:
    """The windows from the tenth on claim, by their overlap, to be swapped; the voices know better."""
    core = tones(2, STEP + OVERLAP).unsqueeze(1)
    tracker, tail = Tracker(voice=pitch), None
    for i in range(20):
        made = tracker(tail.flip(0) if tail is not None and i == 10 else tail, core)
        tail = made[..., STEP:]
        assert torch.equal(made, core), i


def test_alike_voices_still_count_for_more_than_overlaps() -> None:
    """As before, by voices at a cosine of 0.67: within a window, separating may change places."""
    core = tones(2, STEP + OVERLAP).unsqueeze(1)
    tracker, tail = Tracker(voice=lambda x: F.normalize(pitch(x) + 0.4, dim=1)), None
    for i in range(20):
        made = tracker(tail.flip(0) if tail is not None and i == 10 else tail, core)
        tail = made[..., STEP:]
        assert torch.equal(made, core), i


def test_what_separating_left_has_no_voice() -> None:
    """A second track 40 dB down says nothing: its owner comes later and is given the track."""
    first, second = tones(2, 40 * STEP)
    whole = torch.stack([first, 0.01 * first]).unsqueeze(1)
    half = 20 * STEP
    whole[:, 0, half:] = torch.stack([0.01 * second, second])[:, half:]
    whole[..., half - STEP : half + OVERLAP] = 0
    draw = random.Random(0)
    orders = [(0, 1), *(draw.choice([(0, 1), (1, 0)]) for _ in range(38))]
    right = track(whole, orders, Tracker(voice=pitch))
    assert all(right[:18]) and all(right[21:])


def test_what_is_left_of_a_lone_voice_is_put_back() -> None:
    """Parts of a voice on both tracks are one voice; with another one beside it nothing is moved."""
    a, b = tones(2, STEP + OVERLAP)
    tracker = Tracker(voice=pitch)
    for _ in range(3):
        made = tracker(None, torch.stack([0.7 * a, 0.3 * a]).unsqueeze(1))
        torch.testing.assert_close(made[:, 0], torch.stack([a, 0 * a]))
    both = torch.stack([a, 0.5 * b]).unsqueeze(1)
    assert torch.equal(tracker(None, both), both)
    made = tracker(None, torch.stack([0.3 * b, 0.7 * b]).unsqueeze(1))
    torch.testing.assert_close(made[:, 0], torch.stack([0 * b, b]))
    assert torch.equal(tracker(None, both.flip(0)), both)


def test_alike_speakers_who_begin_together_stay_two() -> None:
    a, b = tones(2, STEP + OVERLAP)
    core = torch.stack([a, 0.8 * b]).unsqueeze(1)
    tracker = Tracker(voice=lambda x: F.normalize(torch.ones(len(x), 4), dim=1))
    for _ in range(5):
        assert torch.equal(tracker(None, core), core)


class Talk:
    """One voice a window through a tracker of ``sources``; speakers' voices lie at a cosine of ``alike``."""

    def __init__(self, sources: int, alike: float, spread: float) -> None:
        self.random, self.sources, self.spread = torch.Generator().manual_seed(sources), sources, spread
        first, other = F.normalize(torch.randn(2, 64, generator=self.random), dim=1)
        other = F.normalize(other - (other @ first) * first, dim=0)
        self.middles = [first, alike * first + (1 - alike**2) ** 0.5 * other, -other]
        self.heard = first
        self.tracker = Tracker(voice=lambda x: self.heard.expand(len(x), -1))
        self.tail: Tensor | None = None

    def __call__(self, who: int, source: int = 0, level: float = 1.0) -> int:
        """The track on which a window of ``who``, a little different every time, comes out."""
        noise = torch.randn(64, generator=self.random)
        self.heard = F.normalize(self.middles[who] + self.spread * noise, dim=0)
        core = torch.zeros(self.sources, 1, STEP + OVERLAP)
        core[source] = level * tones(1, STEP + OVERLAP)
        made = self.tracker(self.tail, core)
        self.tail = made[..., STEP:]
        return int(made[:, 0].abs().amax(1).argmax())


@pytest.mark.parametrize(("sources", "people"), [(2, 1), (2, 2), (3, 1), (3, 2), (5, 1)])
def test_who_sounds_like_the_first_speaker_is_told_apart_in_time(sources: int, people: int) -> None:
    """Turns of three windows that follow each other on one source; who speaks alone stays on one track."""
    talk = Talk(sources, alike=0.7, spread=0.06)
    places = [(i // 3 % people, talk(i // 3 % people)) for i in range(90)]
    late = [{place for who, place in places[45:] if who == k} for k in range(people)]
    assert late[0] == {0}
    assert people == 1 or (len(late[1]) == 1 and late[1] != {0})


def test_profiles_move_to_what_explains_the_voices() -> None:
    """They begin between two voices; a faint source is the loud one or the other, by turns."""
    random = torch.Generator().manual_seed(0)
    true = F.normalize(torch.randn(2, 64, generator=random), dim=1)
    speakers = _Speakers(2)
    speakers.known[:] = True
    speakers._heard = torch.tensor([[0.6, 0.4], [0.4, 0.6]]) @ true
    nobody = torch.zeros(2, 64)
    for i in range(40):
        loud, faint = i % 2, (i // 2) % 2
        voices = F.normalize(true[[loud, faint]] + 0.05 * torch.randn(2, 64, generator=random), dim=1)
        heard = (voices * torch.tensor([[1.0], [0.5]]))[[1, 0] if i % 3 else [0, 1]]
        speakers.remember(nobody, 1e-3 * heard, heard)
    cosines = speakers.profiles @ true.T
    assert cosines.diagonal().min() > 0.97
    assert (cosines - true @ true.T).abs().amax() < 0.1


def test_a_monologue_loses_nobody() -> None:
    talk = Talk(2, alike=0.3, spread=0.1)
    assert [talk(who, who) for who in (0, 0, 1, 1) * 3] == [0, 0, 1, 1] * 3
    assert {talk(0) for _ in range(100)} == {0}
    assert [talk(1) for _ in range(3)][1:] == [1, 1]


def test_noise_in_a_long_pause_is_no_voice() -> None:
    talk = Talk(2, alike=0.3, spread=0.05)
    assert [talk(who, who) for who in (0, 0, 1, 1) * 3] == [0, 0, 1, 1] * 3
    for i in range(60):
        talk(2, i % 2, level=10 ** (-45 / 20))
    assert [talk(who, source=1) for who in (0, 0, 0)][1:] == [0, 0]
    assert [talk(who, source=1) for who in (1, 1, 1)][1:] == [1, 1]


def test_a_lone_voice_is_on_one_track_in_all_channels() -> None:
    a = tones(2, STEP + OVERLAP)[0]
    core = torch.stack([torch.stack([0.7 * a, 0.3 * a]), torch.stack([0.25 * a, 0.55 * a])], dim=1)
    made = Tracker(voice=pitch)(None, core)
    torch.testing.assert_close(made, torch.stack([torch.stack([a, 0.8 * a]), torch.zeros(2, len(a))]))


def test_one_party_a_channel_stays_where_it_is() -> None:
    """Telephone stereo: A left, B right, the rest of each channel noise that agrees with nothing."""
    a, b = waves(2, 20_000)
    rest = 0.003 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(1))
    whole = torch.stack([torch.stack([a, rest[0]]), torch.stack([rest[1], b])])  # (S, C, T)
    tracker, tail = Tracker(), None
    for i in range(10):
        core = whole[..., i * STEP : i * STEP + STEP + OVERLAP]
        shuffled = torch.stack([core[:, c].flip(0) if i % (c + 2) else core[:, c] for c in range(2)], 1)
        made = tracker(tail, shuffled)
        tail = made[..., STEP:]
        if i == 0:
            first = [torch.equal(made[0, c], core[0, c]) for c in range(2)]
        assert [torch.equal(made[0, c], core[0, c]) for c in range(2)] == first


@pytest.mark.parametrize("source", [0, 1])
def test_who_begin_together_on_two_channels_are_on_two_tracks(source: int) -> None:
    a, b = tones(2, STEP + OVERLAP)
    core = torch.zeros(2, 2, len(a))
    core[0, 0], core[source, 1] = a, 0.9 * b
    made = Tracker(voice=pitch)(None, core)
    assert [int(made[:, c].abs().amax(1).argmax()) for c in range(2)] == [0, 1]


@pytest.mark.parametrize("quieter", [1.0, 0.03])
def test_a_loud_event_is_forgotten(quieter: float) -> None:
    """Two speakers, the second 30 dB below the first or as loud, and half a second 40 dB above both."""
    whole = (waves(2, 41 * STEP) * torch.tensor([[0.01], [0.01 * quieter]])).unsqueeze(1)
    whole[:, :, 2 * STEP : 3 * STEP] *= 100
    draw = random.Random(0)
    orders = [(0, 1), (0, 1), *(draw.choice([(0, 1), (1, 0)]) for _ in range(38))]
    right = track(whole, orders, Tracker())
    assert sum(right[20:]) in (0, 20)  # perhaps swapped by the event, but steady


def test_quiet_channels_follow_and_a_pause_in_one_moves_no_other() -> None:
    """The right is 28 dB below the left; the left pauses wherever windows overlap."""
    x = waves(2, 31 * STEP)
    left, right = x.clone(), 0.04 * x
    for i in range(1, 31):
        left[:, i * STEP : i * STEP + OVERLAP] = 0
    whole = torch.stack([left, right], 1)  # (S, C, T)
    tracker, tail = Tracker(), None
    for i in range(30):
        core = whole[..., i * STEP : (i + 1) * STEP + OVERLAP]
        shuffled = torch.stack([core[:, 0], core[:, 1].flip(0) if i % 2 else core[:, 1]], 1)
        made = tracker(tail, shuffled)
        tail = made[..., STEP:]
        assert torch.equal(made, core), i


def test_a_model_of_all_channels_is_ordered_as_one() -> None:
    core = waves(2).unsqueeze(1).repeat(1, 2, 1)
    tracker = Tracker(per_channel=False)
    first = tracker(None, core)
    assert torch.equal(tracker(first[..., -OVERLAP:], first.roll(OVERLAP, -1).flip(0)), first.roll(OVERLAP, -1))


def test_channels_follow_the_loudest() -> None:
    x = waves(2)
    core = torch.stack([x * 0.1, x.flip(0)], dim=1)  # (S, C, T): the second channel is louder and swapped
    made = Tracker()(None, core)
    assert torch.equal(made[:, 1], x.flip(0))
    assert torch.equal(made[:, 0], x.flip(0) * 0.1)
