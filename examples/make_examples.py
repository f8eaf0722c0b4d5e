"""Makes the example recordings from two espeak-ng voices; run once, its output is committed.

    apt-get install espeak-ng && python examples/make_examples.py

two_speakers.wav (16 kHz) is the sum of two_speakers_reference{1,2}.flac; narrowband.wav (8 kHz) is
narrowband_reference.flac (48 kHz, content to 11 kHz, where espeak-ng ends) without its highs. voices/ holds
other sentences of four speakers, the two of the mixture among them: what the README's tutorial trains on.
"""

import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import soxr

HERE = Path(__file__).parent
LINES = {
    (
        "en-us+m3",
        150,
        35,
    ): "The archive holds nine thousand hours of recordings, and nobody has listened to half of them.",
    ("en-gb+f2", 170, 70): "Could we meet on Thursday instead, because the studio is taken until late in the evening?",
}
VOICES = {
    "carl": ("en-us+m3", 150, 35),
    "emma": ("en-gb+f2", 170, 70),
    "ruth": ("en-us+f4", 160, 55),
    "john": ("en-gb+m1", 160, 45),
}
TRAIN = (
    "Every tape was numbered by hand, and some of the numbers were used twice.",
    "If the rain stops before noon, we will walk along the river and have lunch outside.",
    "Please turn the microphone a little to the left, and try to speak more slowly.",
    "The old engine hall has a long echo that no carpet has ever been able to remove.",
)
VALID = ("Two of the witnesses remember a blue car, the third one is sure that it was green.",)
NARROW = (("en-gb+f4", 160, 60), "She sells sea shells by the sea shore, and six thick thistle sticks besides.")


def speak(voice: tuple[str, int, int], text: str) -> np.ndarray:
    """Speech at 22,050 Hz, peak 0.5."""
    name, speed, pitch = voice
    command = ["espeak-ng", "-v", name, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    wave, rate = soundfile.read(io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout))
    assert rate == 22050
    return wave / np.abs(wave).max() * 0.5


def main() -> None:
    """Write all example recordings beside this file."""
    voices = [soxr.resample(speak(voice, text), 22050, 16000) for voice, text in LINES.items()]
    length = min(map(len, voices))
    voices = [wave[:length] * level for wave, level in zip(voices, (0.9, 0.7), strict=True)]
    soundfile.write(HERE / "two_speakers.wav", sum(voices), 16000, "PCM_16")
    for i, wave in enumerate(voices):
        soundfile.write(HERE / f"two_speakers_reference{i + 1}.flac", wave, 16000, "PCM_16")
    wide = soxr.resample(speak(*NARROW), 22050, 48000)
    soundfile.write(HERE / "narrowband_reference.flac", wide, 48000, "PCM_16")
    soundfile.write(HERE / "narrowband.wav", soxr.resample(wide, 48000, 8000), 8000, "PCM_16")
    for split, texts in (("train", TRAIN), ("valid", VALID)):
        for name, voice in VOICES.items():
            (HERE / "voices" / split / name).mkdir(parents=True, exist_ok=True)
            for i, text in enumerate(texts):
                wave = soxr.resample(speak(voice, text), 22050, 16000)
                soundfile.write(HERE / "voices" / split / name / f"{i + 1}.ogg", wave, 16000, format="OGG")


if __name__ == "__main__":
    main()
