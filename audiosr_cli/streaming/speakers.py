"""Keeps every speaker on one track: across windows in time, and across the channels of one window.

A hidden Markov model whose states are the orders in which a window's sources may stand. Two kinds of evidence: what
neighbouring windows agree on where they overlap tells how the order changed, and a running profile of each track's
voice tells the order itself, which is all there is after a pause. Forward probabilities (Rabiner 1989, sec. III A)
decide, so that a wrong turn taken on little evidence is corrected when more comes in; what was written stays as it
is. Where one person speaks, what separating put on the other tracks goes back to theirs. Profiles are those that
explain the voices of the last 20 minutes best (expectation-maximisation, Dempster, Laird & Rubin 1977); through the
first 40 windows with speech their voices are grouped anew as well (spherical k-means, Dhillon & Modha 2001), as alike
speakers may begin on one track.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

Embed = Callable[[Tensor], Tensor]  # waves (N, T) → unit vectors (N, D), zeros for silence

_SILENCE = 1e-10  # mean power (-100 dB) below which a stretch says nothing about who speaks
_SPEAKS = 10**-2.5  # of the peak (-25 dB): below, a source is not speaking but what separating left
_OVERLAPS = 1e-4  # of the peak (-40 dB): below, a stretch of overlap says nothing
_DECAY = 0.8  # of the peak from window to window, so that what was loud is forgotten
_SLOW_DECAY = 0.99  # of the level below which nothing is learned: noise in a pause is no voice
MOST_SOURCES = 5  # all orders are weighed against each other
_CHANCE = 0.05  # agreement between channels below which they share no source
_SURE = 8.0  # log-odds that sources which agree entirely, in two channels or where windows overlap, are of one speaker
_SURE_HEARD = 1.0  # the same of windows where voices tell, too: within one, separating may change places
_ALIKE = 14.0  # log-odds of a difference of one between cosines of voices
_STRANGER = 0.35  # cosine that an unknown voice is given: between those of one speaker and of two
_NAMED = 8.0  # log-odds that a newcomer is on the track it was given: tracks are named after who comes first
_NEXT = 3.0  # log-odds that a newcomer is given the first free track and not the one after
_STAY = 0.05  # log-odds that the model's own order stays
_MEMORY = 40.0  # windows that a profile remembers as it goes
_HISTORY, _SOME = 600, 10  # windows whose voices the profiles are to explain: at most, and at least
_LEFT = 1.0  # log-odds that a source beside a louder one is what separating left of it
_ENOUGH, _MOST = 10, 40  # windows with speech, from the beginning on, that are grouped anew: at least, at most
_GROUP = 3.0  # windows that a group of voices has at least
_FIRST = 1e-3  # of a group: who came first keeps the track, where groups were on one
_CLEARER = 0.05  # by which their mean cosine has to rise when they are grouped anew
_ROUNDS, _REFINEMENTS = 5, 3  # of k-means; of expectation and maximisation
_LEAK = (0.1, 0.3)  # by how much a faint voice's cosine with the loud one exceeds that with its own: none, all of it
_NEW = 0.6  # cosine with the loud voice that a faint one needs to be taken for it, before its track has had a speaker
_FAINT = 0.3  # of the loudest one's power (-5 dB): above, what is new is a speaker, however alike


def agreement(first: Tensor, second: Tensor, quiet: tuple[float, float] = (_SILENCE, _SILENCE)) -> Tensor:
    """Scale-free agreement of every pair of sources, in [0, 1]: (S, T) twice → (S of first, S of second).

    The squared normalised correlation; level and polarity do not count. Zero where a source's mean power is
    not above ``quiet`` of its side.
    """
    power_1, power_2 = (x.square().mean(-1) for x in (first, second))
    shared = (first @ second.T / first.shape[-1]).square()
    heard = (power_1 > quiet[0])[:, None] & (power_2 > quiet[1])
    return torch.where(heard, shared / (power_1[:, None] * power_2).clamp_min(_SILENCE**2), 0.0)


def _orders(sources: int) -> Tensor:
    """All permutations of so many: (O, S)."""
    return torch.tensor(list(permutations(range(sources))))


class _Chain:
    """The order of one channel's sources (or of several channels that a model hears together), window by window."""

    def __init__(self, sources: int) -> None:
        self.orders = _orders(sources)  # (O, S): which source is on each track
        self.tracks = self.orders.argsort(1)  # (O, S): which track each source is on
        self.belief = torch.zeros(len(self.orders))  # log-probabilities
        self.order = 0
        self.peak = self.loud = 0.0  # mean power of the loudest source lately, and over minutes

    def hear(self, power: Tensor) -> None:
        """Follow the mean powers (S,) of a window's sources."""
        self.peak = max(_DECAY * self.peak, float(power.max()))
        self.loud = max(_SLOW_DECAY * self.loud, float(power.max()))

    def doubt(self) -> None:
        """Forget the order: it was of voices that are told apart otherwise now."""
        self.belief = torch.zeros_like(self.belief)

    def above(self, share: float) -> float:
        """The power that ``share`` of the peak is, or silence where that is more."""
        return max(_SILENCE, share * self.peak)

    def step(self, pairs: Tensor | None, fit: Tensor, speaks: Tensor, known: Tensor) -> float:
        """Go on to a window; returns the probability that every source that speaks is on its track.

        ``pairs`` (S tracks, S sources): log-odds of the last window's overlap, as it was ordered, being this one's.
        ``fit`` (S, S): log-odds of each source of this window being on each track. ``speaks`` (S,): which sources do;
        ``known`` (S,): which tracks have had a speaker. The others are alike until one is chosen for a newcomer.
        """
        change = _STAY * torch.eye(len(self.orders))
        if pairs is not None:
            change = change + self._transitions(pairs)
        belief = (self.belief[:, None] + change).logsumexp(0)
        belief = belief + fit[torch.arange(len(fit)), self.orders].sum(1)
        belief = belief - belief.logsumexp(0)
        best = int(belief.argmax())
        self.order = best if belief[best] > belief[self.order] + 1e-6 else self.order
        place = self.tracks[:, speaks]  # (O, speaking)
        named = torch.where(known[place], place, -1)
        same = (named == named[self.order]).all(1)
        sure = float(belief[same].exp().sum())
        named_now = same & (place != place[self.order]).any(1)
        others = torch.arange(len(belief)) != self.order
        self.belief = (belief - _NAMED * named_now).clamp_max(float(belief[self.order]) - _STAY * others)
        return min(sure, 1.0)

    def _transitions(self, pairs: Tensor) -> Tensor:
        """Log-odds of every order now (columns) after every order before (rows): (O, O)."""
        place = self.tracks[self.order]  # where each source of the last window went
        return pairs[place[self.orders][:, None, :], self.orders[None, :, :]].sum(-1)

    @property
    def chosen(self) -> list[int]:
        """The source for each track."""
        order: list[int] = self.orders[self.order].tolist()
        return order


class _Speakers:
    """Who is on each track: a profile of the voices heard there of late. Voices count for as much as they are long."""

    def __init__(self, sources: int) -> None:
        self.known = torch.zeros(sources, dtype=torch.bool)  # which tracks have had a speaker
        self._heard = torch.zeros(sources, 1)  # (S, D): sums of the tracks' voices
        self._first: list[tuple[int, Tensor]] = []  # the loudest voices of the first windows, and their tracks
        self._windows = 0  # so far that somebody was heard in
        self._history = torch.zeros(0)  # voices (N, S, D) of the last ones, zeros before: no memory is asked for again

    @property
    def profiles(self) -> Tensor:
        """The tracks' voices (S, D), of length one; zeros where there is none."""
        return F.normalize(self._heard, dim=1)

    @property
    def profiled(self) -> Tensor:
        """(S,): which tracks have had a speaker whose voice is known."""
        return self.known & (self._heard.square().sum(1) > 0)

    def fit(self, voices: Tensor) -> Tensor:
        """Log-odds (S tracks, S sources) of each source's voice (S, D) being each track's.

        Newcomers take the first track that is free.
        """
        weight = voices.norm(dim=1)
        late = (~self.known).cumsum(0).sub(1).clamp_min(0) + (self.known & ~self.profiled)  # (S,): how late each comes
        fit = -_NEXT * late[:, None] * (weight > 0)
        cosines = (self.profiles[:, None] * voices).sum(-1)
        return torch.where(self.profiled[:, None], _ALIKE * (cosines - _STRANGER * weight), fit)

    def leak(self, placed: Tensor, loudest: int) -> Tensor:
        """How much of each track is what separating left of the voice of ``loudest``: (S, D) → (S,) in [0, 1].

        Likely where the voice ``placed`` there is more like the loudest one than like its own track's; before that
        track has had a speaker, where it is like the loudest one and faint.
        """
        unit = F.normalize(placed, dim=1)
        own = torch.where(self.profiled, (self.profiles * unit).sum(1), _NEW)
        leak = ((unit @ unit[loudest] - own - _LEAK[0]) / (_LEAK[1] - _LEAK[0])).clamp(0, 1)
        weight = placed.norm(dim=1)
        leak[loudest] = 0
        made: Tensor = leak * (weight > 0) * (self.profiled | (weight < _FAINT))
        return made

    def remember(self, placed: Tensor, lead: Tensor, heard: Tensor) -> bool:
        """Let the tracks' profiles follow the voices ``placed`` there (S, D).

        ``lead`` (S, D) are those of the loudest channel, ``heard`` the same before anybody was placed. Returns whether
        all voices so far were grouped anew.
        """
        self._heard = self._heard * (1 - placed.norm(dim=1, keepdim=True) / _MEMORY) + placed
        length = lead.norm(dim=1)
        loudest = int(length.argmax())
        if not length[loudest]:
            return False
        if not len(self._history):
            self._history = torch.zeros(_HISTORY, *heard.shape)
        self._history[self._windows % _HISTORY] = heard
        self._windows += 1
        anew = False
        if len(self._first) < _MOST:
            self._first.append((loudest, lead[loudest]))
            anew = len(self._first) >= _ENOUGH and self._regroup()
        if self._windows >= _SOME and self.profiled.all():
            self._refine()
        return anew

    def _refine(self) -> None:
        """Move the profiles to where they explain the voices heard so far best.

        A window's sources are in one of all orders; beside the loudest one, each is its own track's speaker or what
        separating left of the loudest.
        """
        heard = self._history
        count, sources, _ = heard.shape
        loudest = heard.norm(dim=2).argmax(1)  # (N,)
        place = _orders(sources)  # (O, S): the track of each source
        lead = place[:, loudest].T  # (N, O): that of the loudest
        window, source = torch.arange(count)[:, None, None], torch.arange(sources)
        is_lead = F.one_hot(loudest, sources).bool()[:, None]  # (N, 1, S)
        profiles = self.profiles
        for _ in range(_REFINEMENTS):
            fit = _ALIKE * heard @ profiles.T  # (N, S sources, S tracks)
            own = fit[:, source, place]  # (N, O, S)
            left = (fit[window, source, lead.unsqueeze(2)] + _LEFT).masked_fill(is_lead, -torch.inf)
            either = torch.logaddexp(own, left)
            chance = either.sum(2, keepdim=True).softmax(1)  # (N, O, 1)
            moved = (left - either).exp() * chance
            share = ((chance - moved).unsqueeze(3) * F.one_hot(place, sources)).sum(1)  # (N, S sources, S tracks)
            share = share + moved.transpose(1, 2) @ F.one_hot(lead, sources).float()
            profiles = F.normalize(torch.einsum("nsk,nsd->kd", share, heard), dim=1)
        self._heard = profiles * self._heard.norm(dim=1, keepdim=True)

    def _regroup(self) -> bool:
        """Start the profiles anew where another grouping of the voices so far is clearer.

        Who begins to speak and sounds like the first speaker is put on one track with them, and from then on that
        track's profile is of both: only looking back tells them apart.
        """
        tracks = torch.tensor([track for track, _ in self._first])
        voices = torch.stack([voice for _, voice in self._first])
        length, sources = voices.norm(dim=1), len(self.known)
        group, best = tracks, _clarity(voices, tracks, sources) + _CLEARER
        for count in range(max(2, int(self.known.sum())), sources + 1):
            for other in _groupings(voices, count):
                enough = torch.zeros(count).index_add(0, other, length) >= _GROUP
                if enough.all() and (clarity := _clarity(voices, other, count)) > best:
                    group, best = other, clarity
        if group is tracks:
            return False
        own = F.one_hot(group, sources).float() * length[:, None]  # (N, groups)
        share = F.one_hot(tracks, sources).float().T @ own / own.sum(0).clamp_min(1e-6)  # (S tracks, groups)
        share[tracks[0], group[0]] += _FIRST
        orders = _orders(sources)  # the group of each track
        order = orders[share[torch.arange(sources), orders].sum(1).argmax()]
        moved = order.argsort()[group]
        sums = F.one_hot(moved, sources).float().T @ voices
        self.known = sums.norm(dim=1) > 0
        self._heard = sums
        self._first = list(zip(moved.tolist(), voices, strict=True))
        return True


def _clarity(voices: Tensor, group: Tensor, count: int) -> float:
    """How clearly each of ``voices`` (N, D) is like the rest of its group (N,): their mean cosine."""
    rest = (F.one_hot(group, count).float().T @ voices)[group] - voices
    return float((F.normalize(rest, dim=1) * voices).sum() / voices.norm(dim=1).sum())


def _groupings(voices: Tensor, count: int) -> Tensor:
    """Spherical k-means of ``voices`` (N, D) from each of them as a start: groups (N starts, N)."""
    unit = F.normalize(voices, dim=1)
    likeness, seeds = unit @ unit.T, torch.arange(len(unit))[:, None]
    while seeds.shape[1] < count:  # who is least like those chosen
        seeds = torch.cat([seeds, likeness[seeds].amax(1).argmin(1, keepdim=True)], 1)
    centres = unit[seeds]  # (N starts, count, D)
    for _ in range(_ROUNDS):
        group = (F.normalize(centres, dim=2) @ unit.T).argmax(1)  # (N starts, N)
        centres = F.one_hot(group, count).float().transpose(1, 2) @ voices
    made: Tensor = torch.unique(group, dim=0)
    return made


def _put_back(tracks: Tensor, leak: Tensor, loudest: int) -> Tensor:
    """Tracks (S, C, T) of which the shares ``leak`` (S,) go to the loudest one; their sum stays."""
    moved = tracks * leak[:, None, None]
    made = tracks - moved
    made[loudest] += moved.sum(0)
    return made


class Tracker:
    """Puts the sources of each window's core into one order for the whole recording.

    Each channel is a chain of its own where a model hears one channel at a time and may order each differently
    (``per_channel``); the loudest decides first and the others follow it where they share its sources. Without
    ``embed`` only overlaps and channels tell. ``confidence`` has a number in (0, 1] for each window, some thousands an
    hour: the probability that its least certain channel is in order, as far as was known then. It takes up to
    ``MOST_SOURCES`` sources.
    """

    def __init__(self, per_channel: bool = True, embed: Embed | None = None) -> None:
        self.per_channel, self.embed = per_channel, embed
        self.confidence: list[float] = []
        self._chains: list[_Chain] = []
        self._speakers = _Speakers(0)

    def __call__(self, tail: Tensor | None, core: Tensor) -> Tensor:
        """``core`` (S, C, T) with its sources in the order of ``tail`` (S, C, overlap) and of all before."""
        groups = [[c] for c in range(core.shape[1])] if self.per_channel else [list(range(core.shape[1]))]
        if not self._chains:
            self._chains = [_Chain(len(core)) for _ in groups]
            self._speakers = _Speakers(len(core))
        speakers = self._speakers
        made, learned, heard, sure, lead = torch.empty_like(core), [], [], 1.0, None
        powers = [core[:, group].square().mean(-1).amax(1) for group in groups]  # (S,) each
        for c in sorted(range(len(groups)), key=lambda c: -float(powers[c].sum())):
            chain, sources, power = self._chains[c], core[:, groups[c]], powers[c]
            chain.hear(power)
            speaks = power > chain.above(_SPEAKS)
            weight = speaks * power / power.max().clamp_min(_SILENCE)  # a faint voice may be what is left of a loud one
            voices = self._listen(sources) * weight[:, None]
            fit = speakers.fit(voices)
            if lead is not None:
                quiet = (self._chains[lead].above(_SPEAKS), chain.above(_SPEAKS))
                shared = agreement(made[:, groups[lead]].flatten(1), sources.flatten(1), quiet)
                fit = fit + _SURE * shared * weight * (shared.max() > _CHANCE)
            present = speaks if speaks.any() else power > _SILENCE
            certain = chain.step(self._overlap(chain, tail, sources, groups[c]), fit, present, speakers.known)
            placed, loudest = voices[chain.chosen], int(power[chain.chosen].argmax())
            leak = speakers.leak(placed, loudest)
            made[:, groups[c]] = _put_back(sources[chain.chosen], leak, loudest)
            speakers.known |= speaks[chain.chosen] & (leak < 0.5)
            loud = power > _SPEAKS * chain.loud
            heard.append(voices * loud[:, None])
            trusted = (1 - leak) * speakers.known * loud[chain.chosen] * max(0.0, 2 * certain - 1)
            learned.append(placed * trusted[:, None])
            lead, sure = c if lead is None else lead, min(sure, certain)
        if speakers.remember(torch.stack(learned).mean(0), learned[0], heard[0]):
            for chain in self._chains:
                chain.doubt()
        self.confidence.append(round(sure, 4))
        return made

    def _overlap(self, chain: _Chain, tail: Tensor | None, sources: Tensor, group: list[int]) -> Tensor | None:
        """Log-odds (S, S) of the channels ``group`` of ``tail`` (S, C, overlap) being where ``sources`` start."""
        if tail is None or not tail.shape[-1]:
            return None
        quiet, sure = chain.above(_OVERLAPS), _SURE if self.embed is None else _SURE_HEARD
        start = sources[..., : tail.shape[-1]]
        return sure * agreement(tail[:, group].flatten(1), start.flatten(1), (quiet, quiet))

    def _listen(self, sources: Tensor) -> Tensor:
        """Voices (S, D) of ``sources`` (S, C, T), by the loudest channel."""
        if self.embed is None:
            return sources.new_zeros(len(sources), 1)
        return self.embed(sources[:, int(sources.square().sum((0, 2)).argmax())])
