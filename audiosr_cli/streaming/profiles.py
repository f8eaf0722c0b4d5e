"""Speaker profiles: the running mean of the speaker embeddings on each track.

A profile follows its track window by window. Two methods correct what that gets wrong. Expectation-maximisation
(Dempster, Laird & Rubin 1977) moves the profiles to where they explain the embeddings of the last 20 minutes best.
And as two similar speakers may begin on one track, the embeddings of the first windows with speech are clustered anew
(spherical k-means, Dhillon & Modha 2001).

An embedding here is a unit vector times the weight of its source: the source's power relative to the loudest one's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.streaming.order import all_permutations
from audiosr_cli.streaming.tracking_config import TRACKING, TrackingConfig


class SpeakerProfiles:
    """The profiles of all tracks of a recording.

    Args:
        sources: Number S of tracks.
        config: Thresholds.

    Attributes:
        assigned: (S,) bool, the tracks that have had a speaker.
    """

    def __init__(self, sources: int, config: TrackingConfig = TRACKING) -> None:
        self.config = config
        self.assigned = torch.zeros(sources, dtype=torch.bool)
        self._sums = torch.zeros(sources, 1)  # (S, D): decaying sum of each track's embeddings
        self._first: list[tuple[int, Tensor]] = []  # track and embedding of the loudest source in the first windows
        self._windows = 0  # windows with speech
        # Embeddings (N, S, D) of the last windows, zeros before them. Allocated once, so that memory stays constant.
        self._history = torch.zeros(0)

    @property
    def profiles(self) -> Tensor:
        """Unit vectors (S, D); zeros for a track without a profile."""
        return F.normalize(self._sums, dim=1)

    @property
    def has_profile(self) -> Tensor:
        """(S,) bool: the tracks that have had a speaker with an embedding."""
        return self.assigned & (self._sums.square().sum(1) > 0)

    def fit(self, embeddings: Tensor) -> Tensor:
        """Compute the log-odds that each source belongs on each track; new speakers take the first free track.

        Args:
            embeddings: (S, D), one for each source.

        Returns:
            (S tracks, S sources).
        """
        weight = embeddings.norm(dim=1)
        # (S,): how many free tracks come before each track
        rank = (~self.assigned).cumsum(0).sub(1).clamp_min(0) + (self.assigned & ~self.has_profile)
        free = -self.config.first_free_log_odds * rank[:, None] * (weight > 0)
        cosines = (self.profiles[:, None] * embeddings).sum(-1)
        similar = self.config.cosine_log_odds * (cosines - self.config.unknown_cosine * weight)
        return torch.where(self.has_profile[:, None], similar, free)

    def leakage(self, placed: Tensor, loudest: int) -> Tensor:
        """Estimate how much of each track is residual leakage of the loudest track's speaker.

        A source is likely leakage if its embedding is more similar to the loudest one than to its own track's
        profile; on a track without a profile, if it is similar to the loudest one and faint.

        Args:
            placed: Embeddings (S, D) in the order of the tracks.
            loudest: The loudest track.

        Returns:
            Shares (S,) in [0, 1].
        """
        unit = F.normalize(placed, dim=1)
        own = torch.where(self.has_profile, (self.profiles * unit).sum(1), self.config.new_speaker_cosine)
        low, high = self.config.leakage_margins
        share = ((unit @ unit[loudest] - own - low) / (high - low)).clamp(0, 1)
        weight = placed.norm(dim=1)
        share[loudest] = 0
        possible = self.has_profile | (weight < self.config.new_speaker_share)
        output: Tensor = share * (weight > 0) * possible
        return output

    def update(self, placed: Tensor, loudest_channel: Tensor, unordered: Tensor) -> bool:
        """Let the profiles follow one window.

        Args:
            placed: Embeddings (S, D) in the order of the tracks, mean of all channels.
            loudest_channel: The same of the loudest channel.
            unordered: Embeddings (S, D) of the loudest channel in the order of the sources.

        Returns:
            Whether the profiles were replaced by clustering.
        """
        config = self.config
        self._sums = self._sums * (1 - placed.norm(dim=1, keepdim=True) / config.profile_windows) + placed
        weight = loudest_channel.norm(dim=1)
        loudest = int(weight.argmax())
        if not weight[loudest]:
            return False
        if not len(self._history):
            self._history = torch.zeros(config.history_windows, *unordered.shape)
        self._history[self._windows % config.history_windows] = unordered
        self._windows += 1
        replaced = False
        if len(self._first) < config.max_clustering_windows:
            self._first.append((loudest, loudest_channel[loudest]))
            replaced = len(self._first) >= config.min_clustering_windows and self._recluster()
        if self._windows >= config.min_history_windows and self.has_profile.all():
            self._refine()
        return replaced

    def _refine(self) -> None:
        """Move the profiles to where they explain the history best, by expectation-maximisation.

        The sources of a window are in one of all permutations. Beside the loudest one, each is either its own track's
        speaker or residual leakage of the loudest.
        """
        embeddings = self._history
        count, sources, _ = embeddings.shape
        loudest = embeddings.norm(dim=2).argmax(1)  # (N,)
        place = all_permutations(sources)  # (P, S): the track of each source
        lead = place[:, loudest].T  # (N, P): the track of the loudest source
        window, source = torch.arange(count)[:, None, None], torch.arange(sources)
        is_loudest = F.one_hot(loudest, sources).bool()[:, None]  # (N, 1, S)
        profiles = self.profiles
        for _ in range(self.config.em_iterations):
            # E step: the posterior of each source being each track's speaker, on its own or as leakage.
            fit = self.config.cosine_log_odds * embeddings @ profiles.T  # (N, S sources, S tracks)
            own = fit[:, source, place]  # (N, P, S)
            leaked = fit[window, source, lead.unsqueeze(2)] + self.config.leakage_log_odds
            leaked = leaked.masked_fill(is_loudest, -torch.inf)
            either = torch.logaddexp(own, leaked)
            posterior = either.sum(2, keepdim=True).softmax(1)  # (N, P, 1)
            leakage = (leaked - either).exp() * posterior
            share = ((posterior - leakage).unsqueeze(3) * F.one_hot(place, sources)).sum(1)  # (N, S sources, S tracks)
            share = share + leakage.transpose(1, 2) @ F.one_hot(lead, sources).float()
            # M step: the mean direction of each track's embeddings.
            profiles = F.normalize(torch.einsum("nsk,nsd->kd", share, embeddings), dim=1)
        self._sums = profiles * self._sums.norm(dim=1, keepdim=True)

    def _recluster(self) -> bool:
        """Replace the profiles if another clustering of the embeddings so far is clearer; returns whether it is.

        A speaker who begins late and sounds like the first one is put on the first one's track, whose profile is then
        the mean of both. Only a look back at all embeddings can separate the two.
        """
        config = self.config
        tracks = torch.tensor([track for track, _ in self._first])
        embeddings = torch.stack([embedding for _, embedding in self._first])
        weight, sources = embeddings.norm(dim=1), len(self.assigned)
        cluster, best = tracks, clarity(embeddings, tracks, sources) + config.min_clarity_gain
        for count in range(max(2, int(self.assigned.sum())), sources + 1):
            for other in spherical_kmeans(embeddings, count, config.kmeans_iterations):
                enough = torch.zeros(count).index_add(0, other, weight) >= config.min_cluster_windows
                if enough.all() and (score := clarity(embeddings, other, count)) > best:
                    cluster, best = other, score
        if cluster is tracks:
            return False
        own = F.one_hot(cluster, sources).float() * weight[:, None]  # (N, clusters)
        share = F.one_hot(tracks, sources).float().T @ own / own.sum(0).clamp_min(1e-6)  # (S tracks, clusters)
        share[tracks[0], cluster[0]] += config.first_speaker_share
        orders = all_permutations(sources)  # (P, S): the cluster of each track
        order = orders[share[torch.arange(sources), orders].sum(1).argmax()]
        new_tracks = order.argsort()[cluster]
        self._sums = F.one_hot(new_tracks, sources).float().T @ embeddings
        self.assigned = self._sums.norm(dim=1) > 0
        self._first = list(zip(new_tracks.tolist(), embeddings, strict=True))
        return True


def clarity(embeddings: Tensor, cluster: Tensor, count: int) -> float:
    """Compute the weighted mean cosine of ``embeddings`` (N, D) with the rest of their ``cluster`` (N,)."""
    others = (F.one_hot(cluster, count).float().T @ embeddings)[cluster] - embeddings
    return float((F.normalize(others, dim=1) * embeddings).sum() / embeddings.norm(dim=1).sum())


def spherical_kmeans(embeddings: Tensor, count: int, iterations: int) -> Tensor:
    """Cluster by cosine, once from each embedding as the first seed; the other seeds are the least similar ones.

    Args:
        embeddings: (N, D), weighted by their lengths.
        count: Number of clusters.
        iterations: Rounds of assignment and update.

    Returns:
        The distinct clusterings, (at most N starts, N).
    """
    unit = F.normalize(embeddings, dim=1)
    cosines, seeds = unit @ unit.T, torch.arange(len(unit))[:, None]
    while seeds.shape[1] < count:
        seeds = torch.cat([seeds, cosines[seeds].amax(1).argmin(1, keepdim=True)], 1)
    centres = unit[seeds]  # (N starts, count, D)
    for _ in range(iterations):
        cluster = (F.normalize(centres, dim=2) @ unit.T).argmax(1)  # (N starts, N)
        centres = F.one_hot(cluster, count).float().transpose(1, 2) @ embeddings
    output: Tensor = torch.unique(cluster, dim=0)
    return output
