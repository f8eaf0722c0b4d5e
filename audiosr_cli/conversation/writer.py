"""Write label files as atomically as audio: they get their names when everything of a recording is complete."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from audiosr_cli.conversation.labels import Conversation, LabelFormat, write_labels
from audiosr_cli.errors import OutputError
from audiosr_cli.files.atomic import flush, place, temporary


class LabelWriter:
    """Write one label file, as a context manager. The target appears at ``commit``.

    Args:
        target: A path, or ``-`` for standard output.
        label_format: The format.
        exclusive: Fail if ``target`` exists at ``commit``; otherwise replace it.

    Raises:
        OutputError: If the file cannot be written.
    """

    def __init__(self, target: str | Path, label_format: LabelFormat, exclusive: bool = False) -> None:
        self.target, self.label_format, self.exclusive = target, label_format, exclusive
        self._files = ExitStack()
        self._part: Path | None = None

    def __enter__(self) -> Self:
        if str(self.target) == "-":  # some formats' packages write to paths only
            folder = self._files.enter_context(tempfile.TemporaryDirectory())
            self._part = Path(folder) / "labels"
        else:
            self._part = self._files.enter_context(temporary(Path(self.target)))
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def finish(self, conversation: Conversation) -> None:
        """Write the turns to the disk."""
        assert self._part is not None
        try:
            write_labels(self._part, self.label_format, conversation)
            flush(self._part)
        except OSError as error:
            raise self._error(error) from error

    def commit(self) -> None:
        """Give the file its name, or print it."""
        assert self._part is not None
        try:
            if str(self.target) == "-":
                sys.stdout.buffer.write(self._part.read_bytes())
                sys.stdout.buffer.flush()
            else:
                place(self._part, Path(self.target), self.exclusive)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> OutputError:
        name = "standard output" if str(self.target) == "-" else str(self.target)
        return OutputError(f"{name}: cannot be written: {error.strerror or error}")
