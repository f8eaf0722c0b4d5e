"""Encoders of libsndfile: Ogg Vorbis, W64, AIFF and CAF."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from audiosr_cli.audio.encoders.disk_file import DiskFile
from audiosr_cli.audio.encoders.ogg_tags import CommentWriter
from audiosr_cli.audio.formats import BITS, OutputFormat
from audiosr_cli.audio.metadata.cover import Picture
from audiosr_cli.audio.metadata.types import Metadata
from audiosr_cli.errors import OutputError

_FRAMES = 1 << 16  # samples a write: one very long Vorbis write overflows libsndfile's stack
# libsndfile's scale, from 0 for the best to 1. This is Vorbis' quality 6, about 192 kbit/s for stereo: listeners no
# longer tell it from the original.
_VORBIS_LEVEL = 0.4


class SoundFileEncoder:
    """Write one file by libsndfile.

    Args:
        path: The file, which must not exist.
        output_format: Its format.
        metadata: Tags and cover art, which Ogg files hold.
        name: What the file is called in messages.

    Attributes:
        notes: What of the metadata the format cannot hold, one sentence each.

    Raises:
        OSError: If the file cannot be created.
        OutputError: If libsndfile refuses the format.
    """

    def __init__(self, path: Path, output_format: OutputFormat, metadata: Metadata, name: str) -> None:
        self._name, self.notes = name, list[str]()
        self._bits = BITS.get(output_format.subtype)
        self._disk = DiskFile(path)
        ogg = output_format.container == "ogg"
        try:
            with self._translated_errors(f"cannot be written as {output_format.container}"):
                self._sound = soundfile.SoundFile(
                    CommentWriter(self._disk, self._comments(metadata)) if ogg else self._disk,
                    "w",
                    output_format.sample_rate,
                    output_format.channels,
                    output_format.subtype,
                    format=output_format.container.upper(),
                    **({"compression_level": _VORBIS_LEVEL} if ogg else {}),
                )
        except BaseException:
            self._disk.close()
            raise

    def _comments(self, metadata: Metadata) -> list[tuple[str, str]]:
        comments = [(key, value) for key, value in metadata.tags.items() if value]
        picture = None if metadata.cover is None else Picture.of(metadata.cover)
        if picture is not None:
            comments.append(("METADATA_BLOCK_PICTURE", picture.base64_block()))
        elif metadata.cover is not None:
            self.notes.append(f"{self._name}: the cover art is neither JPEG nor PNG, and is left out")
        return comments

    def write(self, samples: NDArray[np.float32] | NDArray[np.int32]) -> None:
        """Append samples (C, T): floats, or integers in units of the last bit. Raises OutputError or OSError."""
        if self._bits is not None:  # libsndfile takes integers left-justified in 32 bits
            samples = samples.astype(np.int32) << (32 - self._bits)
        with self._translated_errors("cannot be written"):
            for i in range(0, samples.shape[1], _FRAMES):
                self._sound.write(samples[:, i : i + _FRAMES].T)
        self._disk.check()

    def close(self) -> None:
        """Complete the file. Raises OutputError or OSError."""
        with self._translated_errors("cannot be written"):
            self._sound.close()
        self._disk.check()
        self._disk.close()

    def abort(self) -> None:
        """Close the file as it is; after ``close`` do nothing."""
        self._disk.abandon()
        self._sound.close()
        self._disk.close()

    @contextmanager
    def _translated_errors(self, what: str) -> Iterator[None]:
        """Turn libsndfile's errors into those of the disk, or else into OutputErrors."""
        try:
            yield
        except (soundfile.LibsndfileError, TypeError) as error:
            self._disk.check()
            reason = getattr(error, "error_string", str(error)).rstrip(".")
            raise OutputError(f"{self._name}: {what}: {reason}") from error


def can_write(output_format: OutputFormat) -> bool:
    """Return whether the installed libsndfile writes a format."""
    return bool(soundfile.check_format(output_format.container.upper(), output_format.subtype))
