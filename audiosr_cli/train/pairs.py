"""Partners by difficulty: which speakers a network separates badly, so that it meets them together more often."""

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

_LEVEL_OF = 100  # so many mixtures the running level looks back


@dataclass(frozen=True)
class Pairs:
    """Draw partners by how hard they are with the first speaker of a mixture; off while ``candidates`` is 0.

    The first speaker is drawn as ever. Its partners are drawn from ``candidates`` others drawn as ever and up to as
    many, the hardest, that it was met with before, with the chance softmax(difficulty / temperature). The temperature
    falls from the first to the second of ``temperature_db`` over ``fall_steps`` steps. ``memory`` is the decay of
    the moving averages.
    """

    candidates: int = 0
    temperature_db: tuple[float, float] = (20.0, 2.0)
    fall_steps: int = 50000
    memory: float = 0.7

    def __post_init__(self) -> None:
        within(self, 0, 1000, "candidates")
        within(self, 0, 0.9999, "memory")
        positive(self, "fall_steps")
        first, last = self.temperature_db
        if not math.inf > first >= last > 0:
            raise UsageError(f"temperature_db = {[first, last]}: above 0, the higher value comes first")


class PairDifficulty:
    """How far below the common level mixtures of certain speakers end, in dB, as moving averages.

    After shen26e (Interspeech 2026), who keep a full matrix and draw among the partners seen. Among thousands of
    speakers few pairs come twice, so here, beside the hardest ones seen, partners drawn by chance stand for all others.
    A pair not seen yet counts as the sum of what its two speakers have on average; one seen moves from there. What is
    averaged is relative to the running level of all mixtures, so that what was seen early in a run, when all were
    worse, does not stay hard for ever.

    ``choose`` depends on its generator and on what was observed two steps ago and before: what the last step observed
    may still be on its way from the device.
    """

    def __init__(self, config: Pairs) -> None:
        self.config = config
        self.steps = 0
        self._clear()
        self._arriving: Readback[int] | None = None  # rows end to end; the context is their length
        self._corpus: weakref.ref[Corpus] | None = None  # weak: copies of this must not copy recordings
        self._possible: list[bool] = []
        self._fingerprint = ""

    def _clear(self) -> None:
        self.level, self.observed = 0.0, 0
        self.speakers: dict[int, float] = {}
        self.partners: defaultdict[int, dict[int, float]] = defaultdict(dict)  # each pair twice

    @property
    def temperature_db(self) -> float:
        """The softmax's temperature now: it falls geometrically."""
        first, last = self.config.temperature_db
        now: float = first * (last / first) ** min(1.0, self.steps / self.config.fall_steps)
        return now

    def difficulty(self, first: int, second: int) -> float:
        """How hard two speakers are together, in dB: above 0 harder than most."""
        observed = self.partners.get(first, {}).get(second)
        return self.speakers.get(first, 0.0) + self.speakers.get(second, 0.0) if observed is None else observed

    def choose(self, corpus: Corpus, rows: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw the speakers of a batch of mixtures.

        Args:
            corpus: Whose speakers to draw.
            rows: Mixtures.
            count: Distinct speakers in each.
            generator: Of the random choices.

        Returns:
            Speakers' indices (rows, count) int64.

        Raises:
            TrainingError: If the corpus has fewer speakers than ``count``.
        """
        self._meet(corpus)
        candidates = self.config.candidates
        people = sum(self._possible)
        speakers = corpus.draw_speakers(rows, max(min(1 + candidates, people), count), generator)
        noise = -(-torch.rand(rows, 2 * candidates + count, generator=generator).clamp(1e-12, 1 - 1e-7).log()).log()
        return torch.tensor(
            [self._row(row, count, gumbel) for row, gumbel in zip(speakers.tolist(), noise.tolist(), strict=True)]
        )

    def _row(self, speakers: list[int], count: int, gumbel: list[float]) -> list[int]:
        """The anchor and its partners: the softmax's draws without replacement, by the Gumbel trick."""
        anchor, *others = speakers
        observed = self.partners.get(anchor, {})
        hardest = sorted(observed.items(), key=lambda item: (-item[1], item[0]))[: self.config.candidates]
        known = set(others)
        others += [partner for partner, _ in hardest if partner not in known and self._possible[partner]]
        scores = [self.difficulty(anchor, other) / self.temperature_db for other in others]
        order = sorted(range(len(others)), key=lambda i: -(scores[i] + gumbel[i]))
        return [anchor, *(others[i] for i in order[: count - 1])]

    def observe(self, speakers: Tensor, counts: Tensor, loss_db: Tensor, ranks: Ranks) -> None:
        """Note how a step's mixtures went; its figures are read from the device one step later.

        Args:
            speakers: (B, S) int64, on any device.
            counts: (B,) bool, which mixtures say something about their speakers.
            loss_db: (B,), high where it went badly; what is not finite is left out.
            ranks: all processes, whose observations are gathered.
        """
        figures = torch.where(counts, loss_db.detach().float(), torch.nan).unsqueeze(1)
        rows = ranks.gather(torch.cat([speakers.float(), figures], dim=1))  # indices below 2 ** 24
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
            self.level += (loss_db - self.level) / min(self.observed, _LEVEL_OF)
            people, above = sorted(map(int, indices)), loss_db - self.level
            memory = self.config.memory
            pairs = [(a, b) for i, a in enumerate(people) for b in people[i + 1 :]]
            moved = [_moved(self.difficulty(a, b), above, memory) for a, b in pairs]
            for (a, b), value in zip(pairs, moved, strict=True):
                self.partners[a][b] = self.partners[b][a] = value
            for speaker in people:
                self.speakers[speaker] = _moved(self.speakers.get(speaker, 0.0), above, memory)

    def _meet(self, corpus: Corpus) -> None:
        """Forget everything where the speakers are others than those that it was learned from."""
        if self._corpus is not None and corpus is self._corpus():
            return
        parts = (corpus.speakers, corpus.lengths)
        fingerprint = hashlib.blake2b(b"".join(part.numpy().tobytes() for part in parts), digest_size=8).hexdigest()
        if self._fingerprint not in ("", fingerprint):
            self._clear()
            self._arriving = None
        self._corpus, self._fingerprint = weakref.ref(corpus), fingerprint
        self._possible = (corpus.chance > 0).tolist()

    def state(self) -> dict[str, Any]:
        """What a resume needs; waits for what is on its way."""
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
        """Go on from ``state``."""
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
    """Wait for what is on its way, and cut it into rows."""
    values, length = arriving.read(), arriving.context
    return [values[i : i + length] for i in range(0, len(values), length)]


def _moved(average: float, value: float, memory: float) -> float:
    """A moving average after one more value."""
    return memory * average + (1 - memory) * value
