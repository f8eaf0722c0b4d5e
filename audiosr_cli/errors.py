"""All errors and warnings that a user can meet; any other exception is a bug in this package.

AudioSRError            what is wrong, with the value, and what to do
├── UsageError          a wrong option or argument: nothing was read or written (exit code 2)
├── InputError          a file that cannot be read as audio, or not to its end
├── SampleError         samples that must not be written: not finite, or clipped under ``--clip error``
├── OutputError         a target that cannot or must not be written
├── ModelError          weights or a model config that cannot be used
│   └── ModelChoiceError    a name or path that is no model, or a model for another task; a UsageError, too
├── TrainingError       data or settings that cannot be used for training
└── BenchError          a measurement that failed
AudioSRWarning          a result that is usable, with something to know about it (Python API)
"""

from __future__ import annotations

import os

__all__ = [
    "AudioSRError",
    "AudioSRWarning",
    "BenchError",
    "InputError",
    "ModelChoiceError",
    "ModelError",
    "OutputError",
    "SampleError",
    "TrainingError",
    "UsageError",
    "error_of_system",
]


class AudioSRError(Exception):
    """Base class of all errors that a user can meet; ``exit_code`` is that of the command.

    Args:
        message: What is wrong, with the value, in one line.
        hint: What to try, in one line. The command prints it below the message; a traceback shows it as a note.
    """

    exit_code = 1

    def __init__(self, message: str = "", hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint is not None:
            self.add_note(f"hint: {hint}")


class UsageError(AudioSRError):
    """An option or argument is wrong."""

    exit_code = 2


class InputError(AudioSRError):
    """A recording cannot be read as audio."""


class SampleError(AudioSRError):
    """Samples are not finite, or exceed full scale under ``--clip error``."""


class OutputError(AudioSRError):
    """A target cannot or must not be written."""


class ModelError(AudioSRError):
    """Weights or a model config cannot be used."""


class ModelChoiceError(ModelError, UsageError):
    """A name or path leads to no model, or to a model for another task."""


class TrainingError(AudioSRError):
    """Data or settings cannot be used for training."""


class BenchError(AudioSRError):
    """A measurement failed."""


class AudioSRWarning(UserWarning):
    """What the command prints as a warning: damaged input, clipped samples, an uncertain speaker order and the like.

    ``warnings.simplefilter("error", AudioSRWarning)`` turns these warnings into exceptions. They are in
    ``result.report.warnings``, too.
    """


def error_of_system(error: OSError) -> AudioSRError:
    """Return the error that a user sees where the operating system refuses something: the file, and the reason."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return AudioSRError(f"{where}{error.strerror or error}")
