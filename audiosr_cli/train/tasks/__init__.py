"""The tasks that a model can be trained for: one file each, one line here."""

from __future__ import annotations

from audiosr_cli.train.tasks.base import Adversary, Batch, Losses, Recordings, Task
from audiosr_cli.train.tasks.embedding import Embedding
from audiosr_cli.train.tasks.latent import Latents
from audiosr_cli.train.tasks.restoration import Restoration
from audiosr_cli.train.tasks.separation import Separation
from audiosr_cli.train.tasks.upsampling import Upsampling

__all__ = [
    "Embedding",
    "TASKS",
    "Adversary",
    "Batch",
    "Latents",
    "Losses",
    "Recordings",
    "Restoration",
    "Separation",
    "Task",
    "Upsampling",
]

TASKS: dict[str, type[Separation] | type[Restoration] | type[Upsampling] | type[Latents] | type[Embedding]] = {
    "separate": Separation,
    "separate-sr": Restoration,
    "upsample": Upsampling,
    "audiosr": Latents,
    "embed": Embedding,
}
