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
    """Noise and the pool of rooms (rooms, positions, T) that ``mixing`` asks for; None where it does without.

    Raises UsageError where it asks for noise or real rooms that ``recordings`` lack.
    """
    if mixing.noisy and recordings.noise is None:
        raise UsageError(f"[task.mixing] noisy = {mixing.noisy}: [data] noise names no folder")
    noise = recordings.noise if mixing.noisy else None
    if not mixing.reverberation:
        return noise, None
    return noise, room_pool(spec.sources, spec.in_rate, mixing.real_rooms, recordings.measured_rooms)
