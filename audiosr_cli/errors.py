"""Errors that a user can meet, as one tree; everything else is a fault of ours.

AudioSRError            what went wrong, the value, what is allowed, what to do
├── UsageError          the call itself is off: nothing was read or written (exit code 2)
├── InputError          a file that cannot be read as audio, or not to its end
├── SampleError         samples that must not be written: not finite, or clipped under ``--clip error``
├── OutputError         a target that cannot be, or must not be, written
├── ModelError          weights or a configuration that cannot be used
├── TrainingError       data or settings that cannot be trained on
└── BenchError          something that was to be measured failed
"""

__all__ = [
    "AudioSRError",
    "BenchError",
    "InputError",
    "ModelError",
    "OutputError",
    "SampleError",
    "TrainingError",
    "UsageError",
]


class AudioSRError(Exception):
    """Base of every error a user can meet; ``exit_code`` is what the shell is told."""

    exit_code = 1


class UsageError(AudioSRError):
    """An option or argument is off."""

    exit_code = 2


class InputError(AudioSRError):
    """A file cannot be read as audio."""


class SampleError(AudioSRError):
    """Samples are not finite, or clip where clipping is forbidden."""


class OutputError(AudioSRError):
    """A target cannot be, or must not be, written."""


class ModelError(AudioSRError):
    """Weights or a configuration cannot be used."""


class TrainingError(AudioSRError):
    """Data or settings cannot be trained on."""


class BenchError(AudioSRError):
    """Something that was to be measured failed."""
