"""Noise and room impulse responses for mixtures, from the recordings of a run."""

from __future__ import annotations

from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.models import ModelSpec
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.reverb import rir_pool
from audiosr_cli.train.tasks.base import Recordings


def noise_and_rirs(mixing: Mixing, recordings: Recordings, spec: ModelSpec) -> tuple[Corpus | None, Tensor | None]:
    """Select the noise and the room impulse responses that mixtures need.

    Args:
        mixing: How mixtures are drawn.
        recordings: The recordings of the run.
        spec: Spec of the network in training, for the number of sources and the sample rate.

    Returns:
        The noise, and the pool of rooms (rooms, positions, T); None for what ``mixing`` does not use.

    Raises:
        UsageError: If ``recordings`` lack noise or measured rooms that ``mixing`` needs.
    """
    if mixing.noise_prob and recordings.noise is None:
        raise UsageError(
            f"[task.mixing] noise_prob = {mixing.noise_prob}: needs recordings of noise; name their folders in "
            "[data] noise"
        )
    noise = recordings.noise if mixing.noise_prob else None
    if not mixing.reverb_prob:
        return noise, None
    return noise, rir_pool(spec.sources, spec.in_rate, mixing.measured_rir_share, recordings.measured_rirs)
