"""Hard-pair sampling: mix speakers more often that the network separates badly."""

from __future__ import annotations

import hashlib
import math
import weakref
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.train.checks import positive, within
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.transfer import Readback

# Number of mixtures over which the running mean of the loss is taken.
_LEVEL_WINDOW = 100


@dataclass(frozen=True)
class PairSampling:
    """Draw the partners of a mixture's first speaker by difficulty; off if ``candidates`` is 0.

    The first speaker is drawn as usual. The candidates for its partners are speakers drawn as usual, and the hardest
    ones of those it was mixed with before. Partners are drawn from them with probability softmax(difficulty /
    temperature).

    Attributes:
        candidates: Number of candidates of each kind.
        temperature_db: First and last temperature of the softmax, in dB.
        anneal_steps: Steps over which the temperature falls geometrically.
        ema_decay: Decay of the exponential moving averages of difficulty.
    """

    candidates: int = 0
    temperature_db: tuple[float, float] = (20.0, 2.0)
    anneal_steps: int = 50000
    ema_decay: float = 0.7

    def __post_init__(self) -> None:
        within(self, 0, 1000, "candidates")
        within(self, 0, 0.9999, "ema_decay")
        positive(self, "anneal_steps")
        first, last = self.temperature_db
        if not math.inf > first >= last > 0:
            raise UsageError(
                f"temperature_db = {[first, last]}: both must be above 0 and finite, the higher value first"
            )


class PairDifficulty:
    """The difficulty of pairs of speakers: exponential moving averages of the loss, relative to all mixtures, in dB.

    After shen26e (Interspeech 2026), who keep a full matrix and draw from all partners observed. With thousands of
    speakers few pairs occur twice, so the candidates here also include random speakers. A pair not observed yet has the
    sum of its speakers' difficulties, and starts from there once it is observed. Averages are relative to the running
    mean loss of all mixtures; otherwise pairs observed early in a run, when all losses were higher, would stay hard.

    ``choose`` depends on its generator and on observations up to two steps ago: those of the last step may still be on
    their way from the device.
    """

    def __init__(self, config: PairSampling) -> None:
        self.config = config
        self.steps = 0
        self._clear()
        self._arriving: Readback[int] | None = None  # rows end to end; the context is the length of a row
        self._corpus: weakref.ref[Corpus] | None = None  # weak: a copy of this must not copy recordings
        self._possible: list[bool] = []
        self._fingerprint = ""

    def _clear(self) -> None:
        self.level, self.observed = 0.0, 0
        self.speakers: dict[int, float] = {}
        self.partners: defaultdict[int, dict[int, float]] = defaultdict(dict)  # each pair in both directions

    @property
    def temperature_db(self) -> float:
        """The current temperature of the softmax in dB."""
        first, last = self.config.temperature_db
        now: float = first * (last / first) ** min(1.0, self.steps / self.config.anneal_steps)
        return now

    def difficulty(self, first: int, second: int) -> float:
        """Return the difficulty of two speakers in dB: above 0 is harder than average."""
        observed = self.partners.get(first, {}).get(second)
        return self.speakers.get(first, 0.0) + self.speakers.get(second, 0.0) if observed is None else observed

    def choose(self, corpus: Corpus, rows: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw the speakers of a batch of mixtures.

        Args:
            corpus: The speakers' recordings.
            rows: Number of mixtures.
            count: Distinct speakers in each.
            generator: Source of the random choices.

        Returns:
            Speakers' indices (rows, count) int64.

        Raises:
            TrainingError: If the corpus has fewer speakers than ``count``.
        """
        self._check_corpus(corpus)
        candidates = self.config.candidates
        available = sum(self._possible)
        speakers = corpus.draw_speakers(rows, max(min(1 + candidates, available), count), generator)
        noise = -(-torch.rand(rows, 2 * candidates + count, generator=generator).clamp(1e-12, 1 - 1e-7).log()).log()
        return torch.tensor(
            [self._row(row, count, gumbel) for row, gumbel in zip(speakers.tolist(), noise.tolist(), strict=True)]
        )

    def _row(self, speakers: list[int], count: int, gumbel: list[float]) -> list[int]:
        """Draw partners of the first speaker from the softmax without replacement (Gumbel top-k trick)."""
        anchor, *candidates = speakers
        observed = self.partners.get(anchor, {})
        hardest = sorted(observed.items(), key=lambda item: (-item[1], item[0]))[: self.config.candidates]
        drawn = set(candidates)
        candidates += [partner for partner, _ in hardest if partner not in drawn and self._possible[partner]]
        scores = [self.difficulty(anchor, candidate) / self.temperature_db for candidate in candidates]
        order = sorted(range(len(candidates)), key=lambda i: -(scores[i] + gumbel[i]))
        return [anchor, *(candidates[i] for i in order[: count - 1])]

    def observe(self, speakers: Tensor, counts: Tensor, loss_db: Tensor, ranks: Ranks) -> None:
        """Record the losses of a step's mixtures; they are read from the device one step later.

        Args:
            speakers: (B, S) int64, on any device.
            counts: (B,) bool, which mixtures count.
            loss_db: (B,) in dB; values that are not finite are ignored.
            ranks: The processes of the run, whose observations are gathered.
        """
        losses = torch.where(counts, loss_db.detach().float(), torch.nan).unsqueeze(1)
        rows = ranks.gather(torch.cat([speakers.float(), losses], dim=1))  # indices below 2 ** 24
        arriving = Readback(rows.flatten(), rows.shape[1])
        if self._arriving is not None:
            self._learn(_rows(self._arriving))
        self._arriving = arriving
        self.steps += 1

    def _learn(self, rows: list[list[float]]) -> None:
        for *indices, loss_db in rows:
            if not math.isfinite(loss_db):
                continue
            self.observed += 1
            self.level += (loss_db - self.level) / min(self.observed, _LEVEL_WINDOW)
            mixed, excess = sorted(map(int, indices)), loss_db - self.level
            decay = self.config.ema_decay
            pairs = [(a, b) for i, a in enumerate(mixed) for b in mixed[i + 1 :]]
            averages = [_ema(self.difficulty(a, b), excess, decay) for a, b in pairs]
            for (a, b), value in zip(pairs, averages, strict=True):
                self.partners[a][b] = self.partners[b][a] = value
            for speaker in mixed:
                self.speakers[speaker] = _ema(self.speakers.get(speaker, 0.0), excess, decay)

    def _check_corpus(self, corpus: Corpus) -> None:
        """Clear all averages if ``corpus`` has other speakers than those they were observed on."""
        if self._corpus is not None and corpus is self._corpus():
            return
        parts = (corpus.speakers, corpus.lengths)
        fingerprint = hashlib.blake2b(b"".join(part.numpy().tobytes() for part in parts), digest_size=8).hexdigest()
        if self._fingerprint not in ("", fingerprint):
            self._clear()
            self._arriving = None
        self._corpus, self._fingerprint = weakref.ref(corpus), fingerprint
        self._possible = (corpus.speaker_probs > 0).tolist()

    def state(self) -> dict[str, Any]:
        """Return what a resume needs; waits for values on their way from the device."""
        pairs = [(a, b, value) for a, row in self.partners.items() for b, value in row.items() if a < b]
        return {
            "steps": self.steps,
            "level": self.level,
            "observed": self.observed,
            "fingerprint": self._fingerprint,
            "speakers": dict(self.speakers),
            "pairs": torch.tensor([pair[:2] for pair in pairs], dtype=torch.int64).view(-1, 2),
            "difficulty": torch.tensor([pair[2] for pair in pairs], dtype=torch.float64),
            "arriving": _rows(self._arriving) if self._arriving else None,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore ``state``."""
        self._clear()
        self.steps, self.level, self.observed = state["steps"], state["level"], state["observed"]
        self._fingerprint = state["fingerprint"]
        self.speakers = dict(state["speakers"])
        for (a, b), value in zip(state["pairs"].tolist(), state["difficulty"].tolist(), strict=True):
            self.partners[a][b] = self.partners[b][a] = value
        rows = state["arriving"]
        self._arriving = Readback(torch.tensor(rows).flatten(), len(rows[0])) if rows else None
        self._corpus = None


def _rows(arriving: Readback[int]) -> list[list[float]]:
    """Wait for the values on their way, and cut them into rows."""
    values, length = arriving.read(), arriving.context
    return [values[i : i + length] for i in range(0, len(values), length)]


def _ema(average: float, value: float, decay: float) -> float:
    """Update an exponential moving average."""
    return decay * average + (1 - decay) * value
