"""What a training task adds to the loop: batches, losses and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from audiosr_cli.models import Model, ModelSpec
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.gan import AdversarialConfig
from audiosr_cli.train.heads import Heads
from audiosr_cli.train.pairs import PairDifficulty
from audiosr_cli.train.ranks import Ranks
from audiosr_cli.train.reverb import MeasuredRirs

# "input" is the network's input; the other entries are the task's own.
Batch = dict[str, Tensor]
# Runs the network in training: its inputs → its float32 output.
ForwardFn = Callable[..., Tensor]

VALID_SEED = 20261120


@dataclass(frozen=True)
class Recordings:
    """The recordings of a run.

    Attributes:
        train: Training recordings.
        valid: Validation recordings.
        noise: Noise for training, if the config names some.
        measured_rirs: Measured room impulse responses, if the config names some.
        valid_noise: Noise for validation scores, if the config names some.
        coded: Copies of ``train`` that went through lossy codecs, if the config wants some; see ``load_coded``.
    """

    train: Corpus
    valid: Corpus
    noise: Corpus | None = None
    measured_rirs: MeasuredRirs | None = None
    valid_noise: Corpus | None = None
    coded: Corpus | None = None


class Losses(NamedTuple):
    """The losses of a batch.

    Attributes:
        terms: Weighted losses by name; their sum is minimised.
        estimate: Waveforms (B, T) for discriminators.
        reference: Their targets (B, T).
        items: Loss of each item (B,) in dB, if the task samples hard pairs.
    """

    terms: dict[str, Tensor]
    estimate: Tensor
    reference: Tensor
    items: Tensor | None = None


class TrainingTask(Protocol):
    """The interface of a training task: a dataclass with these members, registered in TASKS.

    Attributes:
        spec: Spec of the network in training.
        metric: Name of the score, for logs and tables.
        crop_s: Length of a crop in seconds.
        batch_size: Items in the batch of each process.
    """

    spec: ModelSpec
    metric: str
    crop_s: float
    batch_size: int

    @property
    def adversarial(self) -> AdversarialConfig | None:
        """Discriminators to train against, if any."""
        ...

    @property
    def joint_model(self) -> Model | None:
        """A second network that is trained jointly, if any."""
        ...

    @property
    def difficulty(self) -> PairDifficulty | None:
        """The difficulty of pairs of speakers, if the task samples hard pairs."""
        ...

    def heads(self, model: Model) -> Heads | None:
        """Create untrained auxiliary heads for ``model``, if any. Raises UsageError if it cannot have them."""
        ...

    def batch(self, recordings: Recordings, generator: torch.Generator, ranks: Ranks) -> Batch:
        """Make this process's share of a batch, on its device; ``generator`` is the same in all processes."""
        ...

    def losses(self, forward: ForwardFn, batch: Batch) -> Losses:
        """Compute the losses of ``batch``; ``forward`` runs the network."""
        ...

    def score(self, model: Model, recordings: Recordings) -> float:
        """Score ``model`` on held-out recordings; higher is better. The best weights are chosen by this."""
        ...

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:
        """Compute further scores on held-out recordings by name, for information only."""
        ...


class PlainTask:
    """What a training task answers that needs none of the extras: base of the tasks, which override what they have."""

    @property
    def adversarial(self) -> AdversarialConfig | None:
        """None: no discriminators."""
        return None

    @property
    def joint_model(self) -> Model | None:
        """None: no second network."""
        return None

    @property
    def difficulty(self) -> PairDifficulty | None:
        """None: pairs are drawn at random."""
        return None

    def heads(self, model: Model) -> Heads | None:
        """Return None: no auxiliary heads."""
        del model
        return None

    def extra_scores(self, model: Model, recordings: Recordings) -> dict[str, float]:
        """Return an empty dict: no further scores."""
        del model, recordings
        return {}
