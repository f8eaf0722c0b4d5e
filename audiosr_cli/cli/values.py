"""Values of options as people write them: speakers, sample rates, times, sample formats, devices and channels.

Each function takes what stands on the command line, or a value that was parsed before, and raises UsageError.
"""

from __future__ import annotations

import re
from decimal import Decimal
from difflib import get_close_matches

from audiosr_cli.errors import UsageError
from audiosr_cli.runtime.device_names import check_device_name

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(k?)(?:hz)?", re.IGNORECASE | re.ASCII)
_TIME = re.compile(r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d{1,9})?)", re.ASCII)
_SUBTYPE = re.compile(r"(?:pcm_?)?s?(16|24|32)(?:[-_ ]?(?:bits?|le))?")
# What else people call a sample format.
_SUBTYPES = dict.fromkeys(("float", "float32", "f32", "32f", "f32le", "pcm_f32le", "32float"), "FLOAT")
_SPELLINGS = ("16bit", "24bit", "32bit", "s16", "s24", "s32", "pcm_16", "pcm_24", "pcm_32", *_SUBTYPES)


def parse_speakers(value: object) -> int | str:
    """Parse a number of speakers, or auto."""
    text = str(value).strip().lower()
    if text == "auto":
        return text
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise UsageError(f"--speakers {value}: expected a whole number from 1 on, or auto")
    return int(text)


def parse_rate(value: object, option: str = "--rate") -> int:
    """Parse a sample rate, such as 48000, 48k, 44.1k or 48 kHz, to Hz."""
    match = _RATE.fullmatch(str(value).strip())
    if match is None:
        raise UsageError(f"{option} {value}: expected a sample rate, such as 48000, 48k or 44.1k")
    hertz = Decimal(match[1]) * (1000 if match[2] else 1)
    if hertz != int(hertz):
        raise UsageError(f"{option} {value}: is {hertz.normalize():f} Hz; expected a whole number of Hz")
    return int(hertz)


def parse_start(value: object) -> float:
    """Parse the value of ``--start`` to seconds."""
    return _parse_time(value, "--start")


def parse_end(value: object) -> float:
    """Parse the value of ``--end`` to seconds."""
    return _parse_time(value, "--end")


def _parse_time(value: object, option: str) -> float:
    match = _TIME.fullmatch(str(value).strip())
    if match is None:
        raise UsageError(f"{option} {value}: expected a time as seconds, mm:ss or hh:mm:ss, such as 90, 1:30 or 1:30.5")
    hours, minutes, seconds = int(match[1] or 0), int(match[2] or 0), Decimal(match[3])
    if (match[2] is not None and seconds >= 60) or (match[1] is not None and minutes >= 60):
        raise UsageError(f"{option} {value}: minutes and seconds after a colon must be below 60")
    return float(3600 * hours + 60 * minutes + seconds)


def parse_subtype(value: object) -> str:
    """Parse a sample format, such as 24, 24bit, s24, pcm_24, float or f32, to its name, such as PCM_24 or FLOAT."""
    text = str(value).strip().lower()
    if match := _SUBTYPE.fullmatch(text):
        return f"PCM_{match[1]}"
    if text in _SUBTYPES:
        return _SUBTYPES[text]
    from audiosr_cli.audio.formats import FORMATS

    encoded = sorted({name for names in FORMATS.values() for name in names})
    if text.upper() in encoded:
        return text.upper()
    known = [*_SPELLINGS, *(name.lower() for name in encoded)]
    similar = get_close_matches(text, known, 1)
    raise UsageError(
        f"--subtype {value}: unknown; known: 16, 24, 32, float", f"did you mean {similar[0]}?" if similar else None
    )


def parse_device(value: object) -> str:
    """Check the name of a device: auto, cpu, cuda, or cuda:N."""
    return check_device_name(str(value))


def parse_channels(value: object) -> str:
    """Check the value of ``--channels``: each, mix, or the number of a channel."""
    text = str(value)
    if text not in ("each", "mix") and (not text.isdecimal() or int(text) < 1):
        raise UsageError(f"--channels {text}: expected each, mix, or the number of a channel (from 1 on)")
    return text
