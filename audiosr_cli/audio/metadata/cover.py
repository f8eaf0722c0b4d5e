"""Cover art: pictures as audio files carry them."""

from __future__ import annotations

import base64
import io
import struct
from dataclasses import dataclass

_FRONT_COVER = 3  # the picture type of ID3 and FLAC
_BITS = 24  # of a pixel; readers take it for information only


def image_type(image: bytes) -> str:
    """Return the MIME type of a JPEG, PNG, GIF, BMP or WebP file."""
    if image.startswith(b"\x89PNG"):
        return "image/png"
    if image.startswith(b"GIF8"):
        return "image/gif"
    if image.startswith(b"BM"):
        return "image/bmp"
    return "image/webp" if image[8:12] == b"WEBP" else "image/jpeg"


@dataclass(frozen=True)
class Picture:
    """A JPEG or PNG file.

    Attributes:
        data: The file.
        codec: FFmpeg's name of the format, "mjpeg" or "png".
        width: Pixels.
        height: Pixels.
    """

    data: bytes
    codec: str
    width: int
    height: int

    @classmethod
    def of(cls, data: bytes) -> Picture | None:
        """Return the picture in ``data``, None if that is neither a JPEG nor a PNG file."""
        import av

        codec = "mjpeg" if data[:3] == b"\xff\xd8\xff" else "png" if data[:4] == b"\x89PNG" else None
        if codec is None:
            return None
        try:
            with av.open(io.BytesIO(data), format="png_pipe" if codec == "png" else "jpeg_pipe") as image:
                size = image.streams.video[0].codec_context
                return cls(data, codec, size.width, size.height) if size.width and size.height else None
        except (av.error.FFmpegError, IndexError, ValueError):
            return None

    @property
    def mime_type(self) -> str:
        """The MIME type."""
        return image_type(self.data)

    @property
    def file_name(self) -> str:
        """The usual name of cover art in a folder."""
        return "cover.png" if self.codec == "png" else "cover.jpg"

    def base64_block(self) -> str:
        """Return FLAC's picture block in base64, as Ogg files carry it among their tags."""
        mime = self.mime_type.encode()
        head = struct.pack(">2I", _FRONT_COVER, len(mime)) + mime + struct.pack(">I", 0)
        sizes = struct.pack(">5I", self.width, self.height, _BITS, 0, len(self.data))
        return base64.b64encode(head + sizes + self.data).decode()
