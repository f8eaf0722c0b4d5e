"""streaming/profiles.py: profiles that are refined by EM, and clustering."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from audiosr_cli.streaming.profiles import SpeakerProfiles, clarity, spherical_kmeans


def test_refinement_separates_profiles_that_began_between_two_speakers() -> None:
    """A faint second source is leakage of the loud one or the other speaker, in turns."""
    random = torch.Generator().manual_seed(0)
    speakers = F.normalize(torch.randn(2, 64, generator=random), dim=1)
    profiles = SpeakerProfiles(2)
    profiles.assigned[:] = True
    profiles._sums = torch.tensor([[0.6, 0.4], [0.4, 0.6]]) @ speakers
    nothing = torch.zeros(2, 64)
    for i in range(40):
        loud, faint = i % 2, (i // 2) % 2
        embeddings = F.normalize(speakers[[loud, faint]] + 0.05 * torch.randn(2, 64, generator=random), dim=1)
        unordered = (embeddings * torch.tensor([[1.0], [0.5]]))[[1, 0] if i % 3 else [0, 1]]
        profiles.update(nothing, 1e-3 * unordered, unordered)
    cosines = profiles.profiles @ speakers.T
    assert cosines.diagonal().min() > 0.97
    assert (cosines - speakers @ speakers.T).abs().amax() < 0.1


def test_clustering_finds_two_speakers_and_scores_them_higher_than_one() -> None:
    random = torch.Generator().manual_seed(1)
    speakers = F.normalize(torch.randn(2, 64, generator=random), dim=1)
    true = torch.arange(12) % 2
    embeddings = F.normalize(speakers[true] + 0.02 * torch.randn(12, 64, generator=random), dim=1)
    clusterings = spherical_kmeans(embeddings, 2, iterations=5)
    assert {tuple(c.tolist()) for c in clusterings} <= {tuple(true.tolist()), tuple((1 - true).tolist())}
    assert clarity(embeddings, true, 2) > clarity(embeddings, torch.zeros_like(true), 2) + 0.3
