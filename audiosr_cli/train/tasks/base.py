"""What a task adds to the loop: how batches are made, what the loss is, how good the model is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.discriminators import Critics
from audiosr_cli.train.heads import Heads
from audiosr_cli.train.measured_rooms import MeasuredRooms
from audiosr_cli.train.pairs import PairDifficulty
from audiosr_cli.train.ranks import Ranks

Batch = dict[str, Tensor]  # "input" is what the network hears, the rest is the task's own
Forward = Callable[..., Tensor]

VALID_SEED = 20261120


@dataclass(frozen=True)
class Recordings:
    """What a run draws from; ``noise``, ``measured_rooms`` and ``valid_noise`` where the config names some."""

    train: Corpus
    valid: Corpus
    noise: Corpus | None = None
    measured_rooms: MeasuredRooms | None = None
    valid_noise: Corpus | None = None


class Losses(NamedTuple):
    """The weighted terms whose sum is minimised, and the waveforms (B, T) that discriminators compare.

    ``items`` (B,): how hard each item was, in dB, where the task's ``difficulty`` learns from that.
    """

    terms: dict[str, Tensor]
    estimate: Tensor
    reference: Tensor
    items: Tensor | None = None


class Adversary(NamedTuple):
    """Discriminators, and what the generator pays for being told from the truth."""

    critics: Critics
    adversarial: float
    features: float


class Task(Protocol):
    """A new kind of training is a class with these members, and a line in TASKS."""

    spec: ModelSpec  # of the network in training
    figure: str  # what ``score`` returns, for tables
    crop_s: float
    batch_size: int  # of each rank

    @property
    def adversary(self) -> Adversary | None:
        """Discriminators to train against, if any."""
        ...

    @property
    def partner(self) -> Model | None:
        """A second network that learns, too, if any."""
        ...

    @property
    def difficulty(self) -> PairDifficulty | None:
        """How hard speakers are together, where batches depend on it."""
        ...

    def heads(self, model: Model) -> Heads | None:
        """Fresh heads for ``model`` that only training has, if any. Raises UsageError where it cannot have them."""
        ...

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """What this rank gets of a batch, on its device; ``generator`` stands alike on all ranks."""
        ...

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        """What is minimised, from the network's float32 output for ``batch``."""
        ...

    def score(self, model: Model, valid: Corpus) -> float:
        """The held-out figure; higher is better."""
        ...

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:
        """Further held-out figures by name, to be read beside ``score``; nothing is chosen by them."""
        ...
