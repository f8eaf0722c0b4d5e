"""The tasks that a model can be trained for: one file each, registered in TASKS."""

from __future__ import annotations

from audiosr_cli.train.tasks.audiosr import AudioSRTraining
from audiosr_cli.train.tasks.base import Batch, Losses, Recordings, TrainingTask
from audiosr_cli.train.tasks.classification import Classification
from audiosr_cli.train.tasks.embedding import Embedding
from audiosr_cli.train.tasks.restoration import Restoration
from audiosr_cli.train.tasks.separation import Separation
from audiosr_cli.train.tasks.speech import SpeechAndRest
from audiosr_cli.train.tasks.upsampling import Upsampling

__all__ = [
    "Classification",
    "Embedding",
    "TASKS",
    "Batch",
    "AudioSRTraining",
    "Losses",
    "Recordings",
    "Restoration",
    "Separation",
    "SpeechAndRest",
    "TrainingTask",
    "Upsampling",
]

TASKS: dict[
    str,
    type[Separation]
    | type[SpeechAndRest]
    | type[Restoration]
    | type[Upsampling]
    | type[AudioSRTraining]
    | type[Embedding]
    | type[Classification],
] = {
    "separate": Separation,
    "speech-and-rest": SpeechAndRest,
    "separate-sr": Restoration,
    "upsample": Upsampling,
    "audiosr": AudioSRTraining,
    "embed": Embedding,
    "classify": Classification,
}
