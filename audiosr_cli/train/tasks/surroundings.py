"""What surrounds the speakers of a mixture, from the recordings of a run: noise and rooms."""

from __future__ import annotations

from torch import Tensor

from audiosr_cli.errors import UsageError
from audiosr_cli.models import ModelSpec
from audiosr_cli.train.corpus import Corpus
from audiosr_cli.train.measured_rooms import room_pool
from audiosr_cli.train.mixing import Mixing
from audiosr_cli.train.tasks.base import Recordings


def surroundings(mixing: Mixing, recordings: Recordings, spec: ModelSpec) -> tuple[Corpus | None, Tensor | None]:
    """Select the noise and the rooms that mixtures need.

    Args:
        mixing: How mixtures are drawn.
        recordings: The corpora of the run.
        spec: Of the network in training: how many sources, at which rate.

    Returns:
        The noise, and the pool of rooms (rooms, positions, T); None for what ``mixing`` does without.

    Raises:
        UsageError: If ``mixing`` asks for noise or measured rooms that ``recordings`` lack.
    """
    if mixing.noisy and recordings.noise is None:
        raise UsageError(f"[task.mixing] noisy = {mixing.noisy}: [data] noise names no folder")
    noise = recordings.noise if mixing.noisy else None
    if not mixing.reverberation:
        return noise, None
    return noise, room_pool(spec.sources, spec.in_rate, mixing.real_rooms, recordings.measured_rooms)
