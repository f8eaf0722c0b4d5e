"""A file for encoders of other libraries, which loses no error of the disk."""

from __future__ import annotations

from pathlib import Path


class DiskFile:
    """A new file that writes everything it is given, or remembers why it could not.

    FFmpeg ignores short writes and reports some errors late; libsndfile reports none of those while it closes a file.
    From the first error on nothing more is written, the library sees success, and ``check`` raises the error.

    Args:
        path: The file, which must not exist.

    Raises:
        OSError: If it cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0)
        self.name = str(path.absolute())  # FFmpeg opens it by its name to move the index to its start
        self.error: OSError | None = None
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write all of ``data``."""
        rest = memoryview(data)
        try:
            while self.error is None and not self.closed and rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the position, as a file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell()

    def check(self) -> None:
        """Raise the first OSError that there was."""
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        """Write nothing more; FFmpeg's containers look at ``closed`` before they complete a file."""
        self.closed = True

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._file.close()
