"""Draw the spectrograms of the README: `python tools/picture.py WIDEBAND.ogg docs/upsample.png`.

Resamples a full-band recording to 8 kHz, restores it with `audiosr upsample` and shows all three. Needs the extra
`picture`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
import soxr

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    """Write the picture."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    wave, rate = soundfile.read(source, dtype="float32")
    wave = soxr.resample(wave, rate, 48000) if rate != 48000 else wave
    wave = wave[: 4 * 48000]
    with tempfile.TemporaryDirectory() as folder:
        low, high = Path(folder) / "low.wav", Path(folder) / "high.wav"
        soundfile.write(low, soxr.resample(wave, 48000, 8000), 8000, "FLOAT")
        subprocess.run([sys.executable, "-m", "audiosr_cli", "upsample", low, "-o", high], check=True)
        narrow = soxr.resample(soundfile.read(low, dtype="float32")[0], 8000, 48000)
        restored = soundfile.read(high, dtype="float32")[0]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), sharey=True, layout="constrained")
    labels = ("8 kHz recording, resampled", "audiosr upsample", "the original, 48 kHz")
    for axis, part, label in zip(axes, (narrow, restored, wave), labels, strict=True):
        *_, image = axis.specgram(part + 1e-9, NFFT=1024, noverlap=768, Fs=48000, vmin=-130, vmax=-40, cmap="magma")
        axis.set_title(label)
        axis.set_xlabel("seconds")
        axis.set_yticks(np.arange(0, 24001, 4000), [f"{k}" for k in range(0, 25, 4)])
    axes[0].set_ylabel("kHz")
    figure.colorbar(image, ax=axes, label="dB per Hz")
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=90)


if __name__ == "__main__":
    main()
