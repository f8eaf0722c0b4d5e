"""Small media files that tests make and read with PyAV."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

ATTACHED_PICTURE = 0x400


def picture(codec: str = "mjpeg", width: int = 32, height: int = 16) -> bytes:
    """Return a JPEG or PNG file of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as container:
        stream: Any = container.add_stream(codec, rate=1)
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def decode(path: Path) -> tuple[np.ndarray, float]:
    """Return the sound (C, T) of a file as its lengths state it, and the time of its first sample in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        start_s, blocks = None, [np.zeros((stream.channels, 0), np.float32)]
        packed = av.AudioResampler(format="flt")  # PyAV crashes on the planes of eight channels
        for frame in container.decode(stream):
            start_s = float(frame.time or 0) if start_s is None else start_s
            blocks += [part.to_ndarray().reshape(-1, stream.channels).T for part in packed.resample(frame)]
        wave = np.concatenate(blocks, axis=1)
        if "mp4" in container.format.name and stream.duration is not None:  # FFmpeg decodes the last packet whole
            wave = wave[:, : int(stream.duration * stream.time_base * stream.rate)]
    return wave, start_s or 0.0


def tags_of(path: Path) -> tuple[dict[str, str], bytes | None]:
    """Return the tags of a file under lower-case names, and its cover art."""
    with av.open(str(path)) as container:
        tags = {key.lower(): text for key, text in container.metadata.items()}
        for sound in container.streams.audio:
            tags |= {key.lower(): text for key, text in sound.metadata.items()}
        for stream in container.streams.video:
            if int(stream.disposition) & ATTACHED_PICTURE:
                return tags, bytes(next(container.demux(stream)))
    return tags, None


def make_video(
    path: Path,
    container: str = "mp4",
    codec: str = "mpeg4",
    sound: str = "aac",
    sound_at_s: float = 0.0,
    seconds: float = 1.0,
    wave: np.ndarray | None = None,
) -> None:
    """Write a video of noise, 25 frames a second, with a click, or the sound ``wave`` (1, T)."""
    rate = 48000
    with av.open(str(path), "w", format=container) as output:
        video: Any = output.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if codec in ("mpeg4", "libx264"):
            video.codec_context.options = {"bf": "2", "preset": "ultrafast"} if codec == "libx264" else {"bf": "2"}
        audio: Any = output.add_stream(sound, rate=rate)
        audio.codec_context.layout = "mono"
        if sound == "libmp3lame":
            audio.codec_context.format = "fltp"
        audio.metadata["language"] = "deu"
        output.metadata["title"] = "A talk"
        if wave is None:
            wave = np.zeros((1, int(seconds * rate)), np.float32)
            wave[0, 4800:5000] = 0.8 * np.sin(0.2 * np.arange(200))
        packets = [*_picture_packets(video, int(25 * seconds)), *_sound_packets(audio, wave, int(sound_at_s * rate))]
        output.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))


def _picture_packets(stream: Any, frames: int) -> Iterable[Any]:
    random = np.random.default_rng(0)
    for number in range(frames):
        pixels = random.integers(0, 255, (48, 64, 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        yield from stream.encode(frame)
    yield from stream.encode()


def _sound_packets(stream: Any, wave: np.ndarray, start: int) -> Iterable[Any]:
    kind = stream.codec_context.format.name
    packed = (wave.T * 32767).astype(np.int16) if kind == "s16" else wave.T
    samples = wave if kind.endswith("p") else packed.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=kind, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, start, Fraction(1, stream.rate)
    yield from stream.encode(frame)
    yield from stream.encode()


def video_packets(path: Path) -> list[tuple[float, float | None, bool, str]]:
    """Return time, decoding time (None if the container has none), key flag and SHA-256 of every packet of a video."""
    with av.open(str(path)) as container:
        return [
            (
                float(packet.pts * packet.time_base),
                None if packet.dts is None else float(packet.dts * packet.time_base),
                packet.is_keyframe,
                hashlib.sha256(bytes(packet)).hexdigest(),
            )
            for packet in container.demux(container.streams.video[0])
            if packet.size
        ]
