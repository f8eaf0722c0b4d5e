"""Formats of outputs: containers, their sample types, and what their encoders accept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from audiosr_cli.errors import OutputError, UsageError

# The sample types of each container; the first one is the default.
FORMATS: dict[str, tuple[str, ...]] = {
    "wav": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "flac": ("PCM_16", "PCM_24"),
    "w64": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "aiff": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "caf": ("PCM_16", "PCM_24", "PCM_32", "FLOAT"),
    "ogg": ("VORBIS",),
    "opus": ("OPUS",),
    "mp3": ("MPEG_LAYER_III",),
    "m4a": ("AAC",),
    "mp4": ("AAC",),
    "mov": ("AAC", "PCM_16", "PCM_24"),
    "mkv": ("AAC", "PCM_16", "PCM_24"),
    "webm": ("OPUS",),
}
VIDEO_CONTAINERS = ("mp4", "mov", "mkv", "webm")  # the video of a recording is copied into these
BITS = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_SUFFIXES = {"wave": "wav", "oga": "ogg", "aif": "aiff", "m4b": "m4a", "m4v": "mp4", "qt": "mov"}
_WIDER = {"DOUBLE": "FLOAT", "FLOAT": "PCM_24", "PCM_32": "PCM_24"}  # the nearest one if a format lacks a sample type
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_RATES = {  # Hz; all other encoders take any rate up to that of _MAX_RATE
    "MPEG_LAYER_III": _MP3_RATES,
    "AAC": (*_MP3_RATES, 64000, 88200, 96000),
    "OPUS": (8000, 12000, 16000, 24000, 48000),
}
_MAX_RATE = {"flac": 384_000, "mov": 384_000, "mkv": 384_000, "ogg": 192_000}
_MAX_CHANNELS = {"flac": 8, "opus": 8, "mp3": 2, "m4a": 8, "mp4": 8, "mov": 8, "mkv": 8, "webm": 8}
_CODEC_NAMES = {"MPEG_LAYER_III": "mp3", "AAC": "aac", "OPUS": "opus"}


@dataclass(frozen=True)
class OutputFormat:
    """The file format of an output.

    Attributes:
        container: A key of `FORMATS`.
        subtype: The sample type, such as "PCM_16".
        sample_rate: Hz.
        channels: Number of channels.
        bitrate: Bit/s of a lossy output; None for its default.
    """

    container: str
    subtype: str
    sample_rate: int
    channels: int
    bitrate: int | None = None


def choose_format(
    container: str,
    subtype: str | None,
    input_subtype: str,
    sample_rate: int,
    channels: int,
    bitrate: int | None = None,
    name: str = "",
) -> OutputFormat:
    """Choose the format of an output.

    Args:
        container: A key of `FORMATS`, or another suffix for one of them.
        subtype: The sample type; "16", "24" and "32" are short for PCM. None keeps the input's, or the nearest one that
            the format has; lossy and 8-bit input becomes 16 bit.
        input_subtype: The input's sample type.
        sample_rate: Hz.
        channels: Number of channels.
        bitrate: Bit/s of a lossy output; None for its default.
        name: Of the recording, for errors that concern what it is.

    Returns:
        The format.

    Raises:
        OutputError: If the format is unknown or cannot hold the output, or has no such bitrate.
    """
    container = _SUFFIXES.get(container.lower(), container.lower())
    if container not in FORMATS:
        raise OutputError(f"unknown output format {container!r}; must be one of {', '.join(FORMATS)}")
    allowed = FORMATS[container]
    if subtype is not None:
        chosen = subtype.upper()
        chosen = {"16": "PCM_16", "24": "PCM_24", "32": "PCM_32"}.get(chosen, chosen)
        if chosen not in allowed:
            raise OutputError(f"{container} cannot hold {subtype}; must be one of {', '.join(allowed)}")
    else:
        chosen = input_subtype
        while chosen not in allowed and chosen in _WIDER:
            chosen = _WIDER[chosen]
        chosen = chosen if chosen in allowed else allowed[0]
    output_format, where = OutputFormat(container, chosen, sample_rate, channels, bitrate), f"{name}: " if name else ""
    if limit := _exceeded_limit(output_format):
        raise OutputError(f"{where}{limit}; use {_alternatives(output_format)}")
    if bitrate is not None:
        _check_bitrate(output_format, where)
    return output_format


def _exceeded_limit(output_format: OutputFormat) -> str | None:
    """Say which limit of its encoder a format exceeds."""
    container, rate = output_format.container, output_format.sample_rate
    name = _CODEC_NAMES.get(output_format.subtype, container)
    name = container if name == container else f"{container} ({name})"
    most = _MAX_CHANNELS.get(container)
    if most is not None and output_format.channels > most:
        return f"{name} is limited to {most} channels, not {output_format.channels}"
    rates = _RATES.get(output_format.subtype)
    if rates is not None and rate not in rates:
        return f"{name} supports sample rates of {', '.join(map(str, rates))} Hz, not {rate}"
    max_rate = _MAX_RATE.get(container)
    if max_rate is not None and rate > max_rate:
        return f"{name} is limited to {max_rate} Hz, not {rate}"
    return None


def _alternatives(output_format: OutputFormat) -> str:
    """List the containers that can hold what ``output_format`` cannot: those for video, if it is one."""
    video = output_format.container in VIDEO_CONTAINERS
    rate, channels = output_format.sample_rate, output_format.channels
    candidates = VIDEO_CONTAINERS if video else ("m4a", "ogg", "flac", "wav")
    names = [
        name
        for name in candidates
        if any(_exceeded_limit(OutputFormat(name, subtype, rate, channels)) is None for subtype in FORMATS[name])
    ]
    if video and names:  # where only PCM fits, it has to be asked for
        first = OutputFormat(names[0], FORMATS[names[0]][0], rate, channels)
        return " or ".join(names) + (" with --subtype 16 or 24" if _exceeded_limit(first) else "")
    return " or ".join(names or ["wav"])


def bitrate_range(output_format: OutputFormat) -> range:
    """Return the bit/s that the encoder of a lossy format takes, with the largest as its last; empty for others."""
    rate, channels = output_format.sample_rate, output_format.channels
    if output_format.subtype == "MPEG_LAYER_III":  # of MPEG-1, MPEG-2 and MPEG-2.5
        low, high = (32_000, 320_000) if rate >= 32_000 else (8_000, 160_000) if rate >= 16_000 else (8_000, 64_000)
        return range(low, high + 1)
    if output_format.subtype == "AAC":  # at most 6144 bits for the 1024 samples of a frame
        return range(8_000 * channels, 6 * rate * channels + 1)
    if output_format.subtype == "OPUS":
        return range(6_000 * channels, 256_000 * channels + 1)
    return range(0)


def default_bitrate(output_format: OutputFormat) -> int:
    """Return the bit/s of a lossy format for which no other is set; 0 for others.

    Listeners no longer tell these from the original, with a reserve, as outputs are often cut and encoded again.
    """
    # MP3 is its highest: players and editors of all ages take it. AAC and Opus are said to be transparent for stereo
    # at 128 to 192 kbit/s and 128 kbit/s. The bound by the rate spares narrow bands bits that they have no use for.
    rate, channels = output_format.sample_rate, output_format.channels
    if output_format.subtype == "MPEG_LAYER_III":
        return bitrate_range(output_format)[-1]
    per_channel = {"AAC": 128_000, "OPUS": 96_000}.get(output_format.subtype, 0)
    return min(per_channel, 4 * rate) * channels


def _check_bitrate(output_format: OutputFormat, where: str) -> None:
    allowed, bitrate = bitrate_range(output_format), output_format.bitrate
    if not allowed:
        what = f"{output_format.container} with {output_format.subtype}"
        raise OutputError(f"{where}--bitrate {bitrate}: {_no_bitrate(what)}; see --subtype")
    if bitrate not in allowed:
        channels = f"{output_format.channels} channel{'s' if output_format.channels > 1 else ''}"
        what = f"{output_format.container} at {output_format.sample_rate} Hz with {channels}"
        raise OutputError(f"{where}--bitrate {bitrate}: {what} takes {allowed[0]} to {allowed[-1]}")


def parse_bitrate(text: str, container: str) -> int:
    """Return the bit/s that ``text`` stands for, such as "192k" or "192000".

    Args:
        text: As the user gives it.
        container: The format that it is for.

    Raises:
        UsageError: If it is no number, or the format has no bitrate.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([kK]?)", text.strip())
    if match is None:
        raise UsageError(f"--bitrate {text}: expected bits per second, such as 192k")
    if not {*FORMATS.get(container, ())} & {*_CODEC_NAMES}:
        raise UsageError(f"--bitrate {text}: {_no_bitrate(container)}")
    return round(float(match[1]) * (1000 if match[2] else 1))


def _no_bitrate(container: str) -> str:
    lossy = ", ".join(name for name, subtypes in FORMATS.items() if {*subtypes} & {*_CODEC_NAMES})
    return f"{container} has none; it is for {lossy}"


def container_of(path: Path) -> str | None:
    """Return the output format that the suffix of ``path`` stands for, or None."""
    suffix = path.suffix.lstrip(".").lower()
    suffix = _SUFFIXES.get(suffix, suffix)
    return suffix if suffix in FORMATS else None
