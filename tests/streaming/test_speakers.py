"""streaming/speakers.py: the order of speakers across windows, channels and pauses."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.streaming.speakers import Tracker

OVERLAP, STEP = 500, 1500


def waves(sources: int, length: int = 4000) -> Tensor:
    return torch.randn(sources, length, generator=torch.Generator().manual_seed(0))


def tones(sources: int, length: int) -> Tensor:
    """Source k is a tone of its own frequency, which ``pitch`` recognises."""
    return torch.stack([torch.sin(torch.arange(length) * (0.2 + 0.3 * k)) for k in range(sources)])


def pitch(x: Tensor) -> Tensor:
    """A speaker encoder for ``tones``: the spectrum in eight bands."""
    bands = torch.fft.rfft(x)[:, :-1].abs().unflatten(1, (25, -1)).mean(2)
    return F.normalize(bands, dim=1) * (x.abs().amax(1, keepdim=True) > 0)


def track(whole: Tensor, orders: list[tuple[int, ...]], tracker: Tracker) -> list[bool]:
    """Track windows of ``whole`` (S, C, T), each in its own order: whether each came out in the right one."""
    tail, right = None, []
    for i, order in enumerate(orders):
        core = whole[..., i * STEP : (i + 1) * STEP + OVERLAP]
        output = tracker(tail, core[list(order)])
        tail = output[..., STEP:]
        right.append(torch.equal(output, core))
    return right


@pytest.mark.parametrize("sources", [2, 3, 4])
def test_overlaps_determine_the_order(sources: int) -> None:
    draw = random.Random(sources)
    orders = [tuple(range(sources)), *(draw.choice(list(permutations(range(sources)))) for _ in range(19))]
    tracker = Tracker()
    assert all(track(waves(sources, 21 * STEP).unsqueeze(1), orders, tracker))
    assert len(tracker.confidence) == 20
    assert min(tracker.confidence) > 0.9


def test_without_evidence_the_order_stays_and_confidence_falls() -> None:
    core = waves(2).unsqueeze(1)
    tracker = Tracker()
    assert torch.equal(tracker(None, core), core)
    assert torch.equal(tracker(torch.zeros(2, 1, OVERLAP), core), core)
    assert tracker.confidence[0] > 0.9
    for _ in range(200):
        tracker(torch.zeros(2, 1, OVERLAP), core)
    assert tracker.confidence[-1] < 0.6


def turns(sources: int, count: int, draw: random.Random) -> Tensor:
    """One speaker in each window and silence where windows overlap: (S, 1, T)."""
    whole = tones(sources, (count + 1) * STEP)
    for i in range(count):
        quiet = [k for k in range(sources) if k != (i if i < sources else draw.randrange(sources))]
        whole[quiet, i * STEP : (i + 1) * STEP] = 0
        whole[:, i * STEP : i * STEP + OVERLAP] = 0
    whole[:, count * STEP :] = 0
    return whole.unsqueeze(1)


@pytest.mark.parametrize("sources", [2, 3])
def test_embeddings_determine_the_order_after_a_pause(sources: int) -> None:
    draw = random.Random(sources)
    count = 30
    whole = turns(sources, count, draw)
    orders = [tuple(range(sources)), *(draw.choice(list(permutations(range(sources)))) for _ in range(count - 1))]
    speaks = [whole[:, 0, i * STEP : (i + 1) * STEP].abs().amax(1).argmax() for i in range(count)]
    tail, tracker = None, Tracker(embed=pitch)
    for i, order in enumerate(orders):
        output = tracker(tail, whole[..., i * STEP : (i + 1) * STEP + OVERLAP][list(order)])
        tail = output[..., STEP:]
        assert output[:, 0].abs().amax(1).argmax() == speaks[i], i
    assert not all(track(whole, orders, Tracker()))


def test_a_speaker_is_recognised_after_a_long_silence() -> None:
    whole = tones(2, 60 * STEP).unsqueeze(1)
    whole[..., 5 * STEP : 50 * STEP] = 0
    orders = [(0, 1)] * 5 + [(1, 0), (0, 1)] * 22 + [(1, 0)] * 11
    right = track(whole, orders, Tracker(embed=pitch))
    assert all(right[:4]) and all(right[51:])


def test_embeddings_overrule_a_misleading_overlap() -> None:
    """The overlap of the tenth window is swapped, as if the speakers had changed places."""
    core = tones(2, STEP + OVERLAP).unsqueeze(1)
    tracker, tail = Tracker(embed=pitch), None
    for i in range(20):
        output = tracker(tail.flip(0) if tail is not None and i == 10 else tail, core)
        tail = output[..., STEP:]
        assert torch.equal(output, core), i


def test_similar_embeddings_still_overrule_an_overlap() -> None:
    """As before, with embeddings at a cosine of 0.67: a separator may swap speakers within a window."""
    core = tones(2, STEP + OVERLAP).unsqueeze(1)
    tracker, tail = Tracker(embed=lambda x: F.normalize(pitch(x) + 0.4, dim=1)), None
    for i in range(20):
        output = tracker(tail.flip(0) if tail is not None and i == 10 else tail, core)
        tail = output[..., STEP:]
        assert torch.equal(output, core), i


def test_residual_leakage_is_not_a_speaker() -> None:
    """A second track at -40 dB holds leakage only: the second speaker comes later and gets that track."""
    first, second = tones(2, 40 * STEP)
    whole = torch.stack([first, 0.01 * first]).unsqueeze(1)
    half = 20 * STEP
    whole[:, 0, half:] = torch.stack([0.01 * second, second])[:, half:]
    whole[..., half - STEP : half + OVERLAP] = 0
    draw = random.Random(0)
    orders = [(0, 1), *(draw.choice([(0, 1), (1, 0)]) for _ in range(38))]
    right = track(whole, orders, Tracker(embed=pitch))
    assert all(right[:18]) and all(right[21:])


def test_leakage_of_a_lone_speaker_is_moved_back() -> None:
    """One speaker on both tracks ends up on one; with a second speaker beside them nothing is moved."""
    a, b = tones(2, STEP + OVERLAP)
    tracker = Tracker(embed=pitch)
    for _ in range(3):
        output = tracker(None, torch.stack([0.7 * a, 0.3 * a]).unsqueeze(1))
        torch.testing.assert_close(output[:, 0], torch.stack([a, 0 * a]))
    both = torch.stack([a, 0.5 * b]).unsqueeze(1)
    assert torch.equal(tracker(None, both), both)
    output = tracker(None, torch.stack([0.3 * b, 0.7 * b]).unsqueeze(1))
    torch.testing.assert_close(output[:, 0], torch.stack([0 * b, b]))
    assert torch.equal(tracker(None, both.flip(0)), both)


def test_similar_speakers_who_begin_together_keep_two_tracks() -> None:
    a, b = tones(2, STEP + OVERLAP)
    core = torch.stack([a, 0.8 * b]).unsqueeze(1)
    tracker = Tracker(embed=lambda x: F.normalize(torch.ones(len(x), 4), dim=1))
    for _ in range(5):
        assert torch.equal(tracker(None, core), core)


class Conversation:
    """Turns of one speaker a window through a tracker of ``sources``; the first two speakers have ``cosine``."""

    def __init__(self, sources: int, cosine: float, spread: float) -> None:
        self.random, self.sources, self.spread = torch.Generator().manual_seed(sources), sources, spread
        first, other = F.normalize(torch.randn(2, 64, generator=self.random), dim=1)
        other = F.normalize(other - (other @ first) * first, dim=0)
        self.speakers = [first, cosine * first + (1 - cosine**2) ** 0.5 * other, -other]
        self.embedding = first
        self.tracker = Tracker(embed=lambda x: self.embedding.expand(len(x), -1))
        self.tail: Tensor | None = None

    def __call__(self, speaker: int, source: int = 0, level: float = 1.0) -> int:
        """Track a window of ``speaker``, whose embedding varies a little: the track it comes out on."""
        noise = torch.randn(64, generator=self.random)
        self.embedding = F.normalize(self.speakers[speaker] + self.spread * noise, dim=0)
        core = torch.zeros(self.sources, 1, STEP + OVERLAP)
        core[source] = level * tones(1, STEP + OVERLAP)
        output = self.tracker(self.tail, core)
        self.tail = output[..., STEP:]
        return int(output[:, 0].abs().amax(1).argmax())


@pytest.mark.parametrize(("sources", "speakers"), [(2, 1), (2, 2), (3, 1), (3, 2), (5, 1)])
def test_similar_speakers_on_one_source_get_their_own_tracks(sources: int, speakers: int) -> None:
    """Turns of three windows, all on one source; a lone speaker stays on one track."""
    conversation = Conversation(sources, cosine=0.7, spread=0.06)
    tracks = [(i // 3 % speakers, conversation(i // 3 % speakers)) for i in range(90)]
    late = [{track for speaker, track in tracks[45:] if speaker == k} for k in range(speakers)]
    assert late[0] == {0}
    assert speakers == 1 or (len(late[1]) == 1 and late[1] != {0})


def test_a_long_monologue_keeps_the_silent_speaker() -> None:
    conversation = Conversation(2, cosine=0.3, spread=0.1)
    assert [conversation(k, k) for k in (0, 0, 1, 1) * 3] == [0, 0, 1, 1] * 3
    assert {conversation(0) for _ in range(100)} == {0}
    assert [conversation(1) for _ in range(3)][1:] == [1, 1]


def test_noise_in_a_long_pause_does_not_change_profiles() -> None:
    conversation = Conversation(2, cosine=0.3, spread=0.05)
    assert [conversation(k, k) for k in (0, 0, 1, 1) * 3] == [0, 0, 1, 1] * 3
    for i in range(60):
        conversation(2, i % 2, level=10 ** (-45 / 20))
    assert [conversation(k, source=1) for k in (0, 0, 0)][1:] == [0, 0]
    assert [conversation(k, source=1) for k in (1, 1, 1)][1:] == [1, 1]


def test_a_lone_speaker_is_on_one_track_in_all_channels() -> None:
    a = tones(2, STEP + OVERLAP)[0]
    core = torch.stack([torch.stack([0.7 * a, 0.3 * a]), torch.stack([0.25 * a, 0.55 * a])], dim=1)
    output = Tracker(embed=pitch)(None, core)
    torch.testing.assert_close(output, torch.stack([torch.stack([a, 0.8 * a]), torch.zeros(2, len(a))]))


def test_telephone_stereo_keeps_its_order() -> None:
    """One speaker in each channel; the other source of each channel is uncorrelated noise."""
    a, b = waves(2, 20_000)
    noise = 0.003 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(1))
    whole = torch.stack([torch.stack([a, noise[0]]), torch.stack([noise[1], b])])  # (S, C, T)
    tracker, tail = Tracker(), None
    for i in range(10):
        core = whole[..., i * STEP : i * STEP + STEP + OVERLAP]
        shuffled = torch.stack([core[:, c].flip(0) if i % (c + 2) else core[:, c] for c in range(2)], 1)
        output = tracker(tail, shuffled)
        tail = output[..., STEP:]
        if i == 0:
            first = [torch.equal(output[0, c], core[0, c]) for c in range(2)]
        assert [torch.equal(output[0, c], core[0, c]) for c in range(2)] == first


@pytest.mark.parametrize("source", [0, 1])
def test_speakers_who_begin_together_on_two_channels_get_two_tracks(source: int) -> None:
    a, b = tones(2, STEP + OVERLAP)
    core = torch.zeros(2, 2, len(a))
    core[0, 0], core[source, 1] = a, 0.9 * b
    output = Tracker(embed=pitch)(None, core)
    assert [int(output[:, c].abs().amax(1).argmax()) for c in range(2)] == [0, 1]


@pytest.mark.parametrize("quieter", [1.0, 0.03])
def test_a_loud_event_is_forgotten(quieter: float) -> None:
    """Two speakers, equally loud or 30 dB apart, and one window that is 40 dB louder than both."""
    whole = (waves(2, 41 * STEP) * torch.tensor([[0.01], [0.01 * quieter]])).unsqueeze(1)
    whole[:, :, 2 * STEP : 3 * STEP] *= 100
    draw = random.Random(0)
    orders = [(0, 1), (0, 1), *(draw.choice([(0, 1), (1, 0)]) for _ in range(38))]
    right = track(whole, orders, Tracker())
    assert sum(right[20:]) in (0, 20)  # the event may swap them, but only once


def test_a_quiet_channel_keeps_its_order_when_the_loud_one_pauses() -> None:
    """The right channel is 28 dB below the left one, which pauses wherever windows overlap."""
    x = waves(2, 31 * STEP)
    left, right = x.clone(), 0.04 * x
    for i in range(1, 31):
        left[:, i * STEP : i * STEP + OVERLAP] = 0
    whole = torch.stack([left, right], 1)  # (S, C, T)
    tracker, tail = Tracker(), None
    for i in range(30):
        core = whole[..., i * STEP : (i + 1) * STEP + OVERLAP]
        shuffled = torch.stack([core[:, 0], core[:, 1].flip(0) if i % 2 else core[:, 1]], 1)
        output = tracker(tail, shuffled)
        tail = output[..., STEP:]
        assert torch.equal(output, core), i


def test_channels_processed_together_share_one_order() -> None:
    core = waves(2).unsqueeze(1).repeat(1, 2, 1)
    tracker = Tracker(per_channel=False)
    first = tracker(None, core)
    assert torch.equal(tracker(first[..., -OVERLAP:], first.roll(OVERLAP, -1).flip(0)), first.roll(OVERLAP, -1))


def test_channels_follow_the_loudest_one() -> None:
    x = waves(2)
    core = torch.stack([x * 0.1, x.flip(0)], dim=1)  # (S, C, T): the second channel is louder and swapped
    output = Tracker()(None, core)
    assert torch.equal(output[:, 1], x.flip(0))
    assert torch.equal(output[:, 0], x.flip(0) * 0.1)
