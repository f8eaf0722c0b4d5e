"""What `make demo` runs: the two main commands on the example recordings, and how good their output is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from audiosr_cli.dsp.metrics import best_order, lsd, si_sdr

HERE = Path(__file__).parent
OUT = Path("demo_out")
CONTENT_HZ = 11025  # where the synthetic voices end


def audiosr(*arguments: str) -> list[str]:
    """Run the command as a user would; returns the names it printed."""
    print("$ audiosr", *arguments, flush=True)
    made = subprocess.run(
        [sys.executable, "-m", "audiosr_cli", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    print(made.stdout, end="")
    return made.stdout.split()


def load(path: str | Path) -> torch.Tensor:
    """A mono file as (T,) float32."""
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])


def main() -> None:
    """Separate, upsample, score."""
    mixture = str(HERE / "two_speakers.wav")
    names = audiosr("separate", mixture, "--speakers", "2", "--output", str(OUT), "--overwrite")
    estimate = torch.stack([load(name) for name in names])
    reference = torch.stack([load(HERE / f"two_speakers_reference{i}.flac") for i in (1, 2)])
    before = si_sdr(load(mixture).expand_as(reference), reference)
    after = si_sdr(estimate[list(best_order(estimate, reference))], reference)
    for i in range(2):
        print(f"  speaker {i + 1}: SI-SDR {before[i]:.1f} dB in the mixture, {after[i]:.1f} dB separated")

    narrow, wide = str(HERE / "narrowband.wav"), load(HERE / "narrowband_reference.flac")
    (name,) = audiosr("upsample", narrow, "--rate", "48000", "--output", str(OUT), "--overwrite")
    plain = torch.from_numpy(soxr.resample(np.asarray(load(narrow)), 8000, 48000))
    for label, wave in (("resampled by soxr", plain), ("upsampled", load(name))):
        score = lsd(wave[: len(wide)], wide[: len(wave)], high=CONTENT_HZ / 24000)
        print(f"  {label}: LSD {score:.2f} up to {CONTENT_HZ} Hz (0 is perfect)")


if __name__ == "__main__":
    main()
