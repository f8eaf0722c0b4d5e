"""Errors and warnings that a user can meet; any other exception is a bug in this package.

AudioSRError            the message says what is wrong, with the value, and what to do
├── UsageError          an invalid option or argument; nothing was read or written (exit code 2)
├── InputError          a recording cannot be read, or not to its end
├── SampleError         samples that must not be written: not finite, or beyond full scale with ``--clip error``
├── OutputError         an output cannot be written, or must not be
├── ModelError          a checkpoint or a model's configuration cannot be used
├── TrainingError       training data or settings cannot be used
└── BenchError          a benchmark failed
AudioSRWarning          the result is usable, but there is something to know about it (Python API only)
"""

__all__ = [
    "AudioSRError",
    "AudioSRWarning",
    "BenchError",
    "InputError",
    "ModelError",
    "OutputError",
    "SampleError",
    "TrainingError",
    "UsageError",
]


class AudioSRError(Exception):
    """Base class of all errors that a user can meet. ``exit_code`` is the exit code of the command."""

    exit_code = 1


class UsageError(AudioSRError):
    """An option or argument is invalid."""

    exit_code = 2


class InputError(AudioSRError):
    """A recording cannot be read as audio."""


class SampleError(AudioSRError):
    """Samples are not finite, or exceed full scale where that is forbidden."""


class OutputError(AudioSRError):
    """An output cannot be written, or must not be."""


class ModelError(AudioSRError):
    """A checkpoint or a model's configuration cannot be used."""


class TrainingError(AudioSRError):
    """Training data or settings cannot be used."""


class BenchError(AudioSRError):
    """A benchmark failed."""


class AudioSRWarning(UserWarning):
    """What the command prints as a warning: damaged input, samples beyond full scale, uncertain speaker order, ...

    Turn these warnings into exceptions with ``warnings.simplefilter("error", AudioSRWarning)``; they are also in
    ``result.report.warnings``.
    """
