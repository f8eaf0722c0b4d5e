"""streaming/counting.py: clusters of embeddings, which of them are speakers, and how sure that is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.streaming.counting import SpeakerCount, SpeechWindows, cluster, count_speakers
from audiosr_cli.streaming.counting_config import COUNTING

EYE = torch.eye(8)


def voices(*seconds: int, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Embeddings of one voice after the other, one a second, which differ from their mean."""
    torch.manual_seed(0)
    means = torch.cat([EYE[i].expand(count, -1) for i, count in enumerate(seconds)])
    noise = F.normalize(torch.randn(means.shape), dim=1)
    return F.normalize(means + spread * noise, dim=1), torch.ones(len(means))


def at(cosine: float) -> tuple[Tensor, Tensor]:
    """Two voices of 20 s whose means have this cosine."""
    second = cosine * EYE[0] + (1 - cosine**2) ** 0.5 * EYE[1]
    return torch.cat([EYE[:1].expand(20, -1), second.expand(20, -1)]), torch.ones(40)


def test_similar_embeddings_form_clusters_numbered_by_their_first_members() -> None:
    embeddings, seconds = voices(5, 4, 3)
    order = torch.tensor([5, 0, 9, 1, 6, 10, 2, 7, 11, 3, 8, 4])
    labels = cluster(embeddings[order], seconds, 0.45)
    assert labels.tolist() == [0, 1, 2, 1, 0, 2, 1, 0, 2, 1, 0, 1]


def test_clusters_are_joined_by_their_weighted_means() -> None:
    """The third one is similar to the mean of the first two only if the second one counts."""
    embeddings = F.normalize(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), dim=1)
    assert cluster(embeddings, torch.tensor([1.0, 9.0, 1.0]), 0.6).tolist() == [0, 0, 0]
    assert cluster(embeddings, torch.tensor([9.0, 1.0, 1.0]), 0.6).tolist() == [0, 0, 1]


@pytest.mark.parametrize("seconds", [(20,), (20, 8), (12, 9, 7)])
def test_every_voice_with_enough_speech_is_a_speaker(seconds: tuple[int, ...]) -> None:
    count = count_speakers(SpeechWindows(*voices(*seconds), 0.0))
    assert (count.speakers, count.voices) == (len(seconds), len(seconds))
    assert count.confidence > 0.6


@pytest.mark.parametrize(
    ("seconds", "speakers"),
    [((9, 1), 1), ((8, 2), 2), ((27, 2), 1), ((27, 3), 2), ((90, 3), 1), ((90, 4), 2)],
    ids=str,
)
def test_a_voice_needs_a_tenth_of_the_speech_but_2_to_4_s(seconds: tuple[int, ...], speakers: int) -> None:
    assert count_speakers(SpeechWindows(*voices(*seconds, spread=0.1), 0.0)).speakers == speakers


def test_no_more_speakers_are_returned_than_can_be_separated() -> None:
    count = count_speakers(SpeechWindows(*voices(9, 8, 7, 6), 0.0))
    assert (count.speakers, count.voices) == (3, 4)


def test_without_speech_one_speaker_is_a_guess() -> None:
    assert count_speakers(SpeechWindows(torch.zeros(0, 8), torch.zeros(0))) == SpeakerCount(1, 0.3333, 0)


def test_two_who_always_speak_at_once_are_two_however_similar() -> None:
    assert count_speakers(SpeechWindows(*voices(20), 0.2)).speakers == 1
    count = count_speakers(SpeechWindows(*voices(20), 0.9))
    assert (count.speakers, count.voices) == (2, 2)
    assert count.confidence > 0.9
    assert count_speakers(SpeechWindows(*voices(10, 9, 8), 0.9)).speakers == 3


def test_what_is_loud_but_not_speech_lowers_the_confidence() -> None:
    clear, noisy = (count_speakers(SpeechWindows(*voices(20, 20), 0.0, clarity)) for clarity in (1.0, 0.5))
    assert (noisy.speakers, noisy.confidence) == (2, pytest.approx(clear.confidence / 2, abs=1e-4))
    always = (count_speakers(SpeechWindows(*voices(20), 0.9, clarity)).confidence for clarity in (1.0, 0.5))
    assert next(always) == pytest.approx(2 * next(always), abs=2e-4)


def test_confidence_falls_with_similar_voices_little_speech_and_overlap() -> None:
    assert (
        count_speakers(SpeechWindows(*at(0.0), 0.0)).confidence
        > count_speakers(SpeechWindows(*at(0.3), 0.0)).confidence
        > 0.5
    )
    assert count_speakers(SpeechWindows(*at(COUNTING.min_cosine + 0.01), 0.0)).speakers == 1
    assert (
        count_speakers(SpeechWindows(*voices(20, 20), 0.0)).confidence
        > count_speakers(SpeechWindows(*voices(20, 5), 0.0)).confidence
    )
    assert (
        count_speakers(SpeechWindows(*voices(30), 0.0)).confidence
        > count_speakers(SpeechWindows(*voices(30, 2), 0.0)).confidence
    )
    assert (
        count_speakers(SpeechWindows(*voices(20), 0.0)).confidence
        > count_speakers(SpeechWindows(*voices(20), 0.4)).confidence
    )


def test_three_who_always_speak_at_once_are_three_if_two_of_them_do() -> None:
    assert count_speakers(SpeechWindows(*voices(20), 0.9, overlap3=0.3)).speakers == 2
    count = count_speakers(SpeechWindows(*voices(20, 20), 0.9, overlap3=1.0))
    assert (count.speakers, count.voices) == (3, 3)
    assert count.confidence > 0.9
    assert count_speakers(SpeechWindows(*voices(20), 0.2, overlap3=0.9)).speakers == 1
