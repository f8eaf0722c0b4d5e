"""The number of speakers, from the embeddings of windows in which somebody speaks.

The embeddings are clustered by agglomeration: the two clusters whose means are most similar are joined until no two
are similar enough to be one voice. The clusters with enough speech are the speakers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.streaming.counting_config import COUNTING, CountingConfig


@dataclass(frozen=True)
class SpeakerCount:
    """The number of speakers of a recording.

    Attributes:
        speakers: From 1 to the largest number that can be separated; 1 if nobody speaks.
        confidence: Estimated probability, from 0 to 1, that it is right.
        voices: Voices that were distinguished; may be 0, and may be more than ``speakers``.
        analysed_s: Seconds of the recording that were analysed.
        where: Where these are, as in "2 speakers, counted in its first 60 s"; empty for all of the recording.
        elapsed_s: Seconds that it took.
    """

    speakers: int
    confidence: float
    voices: int
    analysed_s: float = 0.0
    where: str = ""
    elapsed_s: float = 0.0


@dataclass(frozen=True, eq=False)
class SpeechWindows:
    """What tells the speakers of a recording: windows of separated sources in which one person dominates.

    Attributes:
        embeddings: (N, D), unit vectors; N may be 0.
        seconds: (N,), how much speech each of them stands for.
        overlap: Share of the windows with speech in which two people seem to speak.
        clarity: Share of the loud windows in which somebody speaks; what the others hold is unknown.
        overlap3: Share of the windows with speech in which three people seem to speak.
    """

    embeddings: Tensor
    seconds: Tensor
    overlap: float = 0.0
    clarity: float = 1.0
    overlap3: float = 0.0


def count_speakers(windows: SpeechWindows, config: CountingConfig = COUNTING) -> SpeakerCount:
    """Count the voices of a recording.

    Args:
        windows: Where somebody speaks.
        config: Thresholds.

    Returns:
        The number of speakers. Without any speech it is 1, with the confidence of a guess.
    """
    embeddings, seconds = windows.embeddings, windows.seconds
    if not len(embeddings):
        return SpeakerCount(1, round(1 / config.max_speakers, 4), 0)
    labels = cluster(embeddings, seconds, config.min_cosine)
    sizes = torch.zeros(int(labels.max()) + 1).index_add(0, labels, seconds)  # (K,) seconds
    least_s = min(max(config.voice_share * float(sizes.sum()), config.min_voice_s), config.max_voice_s)
    voices = max(int((sizes >= least_s).sum()), 1)
    # Probabilities that at least two and at least three people speak at once.
    two = _probability(config.overlap_log_odds * (windows.overlap - config.min_overlap))
    three = _probability(config.overlap_log_odds * (windows.overlap3 - config.min_overlap3))
    at_once = 1 + (two >= 0.5) + (two >= 0.5 and three >= 0.5)
    if voices < at_once:
        return SpeakerCount(at_once, round((two if at_once == 2 else three) * windows.clarity, 4), at_once)
    speakers, order = min(voices, config.max_speakers), sizes.argsort(descending=True)
    means = F.one_hot(labels, len(sizes)).float().T @ (embeddings * seconds[:, None])
    confidence = _confidence(sizes[order].tolist(), F.normalize(means[order], dim=1), speakers, least_s, config)
    confidence *= windows.clarity * (1 - two if speakers == 1 else 1)
    return SpeakerCount(speakers, round(confidence, 4), voices)


def cluster(embeddings: Tensor, weights: Tensor, min_cosine: float) -> Tensor:
    """Cluster by agglomeration with centroid linkage.

    Args:
        embeddings: (N, D), unit vectors; N is at least 1.
        weights: (N,), above 0.
        min_cosine: Cosine of two clusters' weighted means from which they are joined; the most similar ones first.

    Returns:
        (N,), the cluster of each, numbered from 0 in the order of their first members.
    """
    sums, labels = embeddings * weights[:, None], torch.arange(len(embeddings))
    unit = F.normalize(sums, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-math.inf)
    while cosines.max() >= min_cosine:
        kept, joined = sorted(divmod(int(cosines.argmax()), len(labels)))
        labels[labels == joined] = kept
        sums[kept] += sums[joined]
        unit[kept] = F.normalize(sums[kept], dim=0)
        row = (unit @ unit[kept]).masked_fill(cosines[kept] == -math.inf, -math.inf)
        cosines[kept], cosines[:, kept] = row, row
        cosines[joined], cosines[:, joined] = -math.inf, -math.inf
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return torch.tensor([numbers[label] for label in labels.tolist()])


def _confidence(sizes: list[float], means: Tensor, speakers: int, least_s: float, config: CountingConfig) -> float:
    """Estimate the probability that the largest clusters are voices, all of them different, and the next one is not."""

    def log_odds(size_s: float) -> float:
        return config.doubling_log_odds * math.log2(size_s / least_s)

    confidence = math.prod(_probability(log_odds(size_s)) for size_s in sizes[:speakers])
    if speakers < min(len(sizes), config.max_speakers):
        confidence *= _probability(-log_odds(sizes[speakers]))
    for first, second in combinations(means[:speakers], 2):
        confidence *= _probability(config.cosine_log_odds * (config.min_cosine - float(first @ second)))
    return confidence


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
