"""Score `audiosr separate` on mixtures of held-out speakers: `python tools/score_separation.py`.

Writes the mixtures to a temporary folder, runs the command on it as a user would, and reads its output back. Options
that are not listed by ``--help``, such as ``--model``, are passed to the command. Mixtures are cut to the shortest
source, with levels within ± 2.5 dB, and are the same in every run.

``--command separate-sr`` scores that command, ``--rate 48000`` takes the speakers of speech48k/valid. ``--noise`` adds
noise48k/valid, 10 to 20 dB below the speakers, or at the SNR of ``--snr``. With ``--speakers 1`` there is always noise,
at 0 dB by default; ``--noise none`` leaves it out, to measure what is lost of clean speech. ``--rooms`` puts each
mixture into a small room (T60 0.15 to 0.4 s); the references are the reverberant sources. ``--interference`` adds DC,
hum or rumble to what is separated; improvements are those over the mixture without it. ``--turns`` has one speaker
after the other, to measure how much of the high frequencies of a speaker who talks alone is on their track.
``--perceptual`` adds STOI, PESQ and DNSMOS of the tracks, the mixtures and (DNSMOS) the references; it needs the extra
``metrics`` and works at 16 kHz or above.
"""

import argparse
import csv
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import soundfile
import soxr
import torch
from data_folder import add_data_option
from torch import Tensor
from torch.nn import functional as F

from audiosr_cli.bench import perceptual
from audiosr_cli.dsp.metrics import best_order, lsd, sdr, si_sdr
from audiosr_cli.errors import AudioSRError
from audiosr_cli.train.reverb import impulse_responses, reverberate

RATE = 16000
FOLDERS = {16000: "speech16k", 48000: "speech48k"}
CUTOFF_HZ = 4000.0  # LSD is also computed above it
SEED = 1


class Mixture(NamedTuple):
    """Sources (S, T) and mixture (T,) at ``rate`` Hz, and whether all speakers have the same sex (None: unknown)."""

    sources: Tensor
    mix: Tensor
    alike: bool | None
    rate: int


def load(path: Path, wanted: int = RATE) -> Tensor:
    """Load the first channel of a file as (T,) float32 at the rate ``wanted``."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(wave[:, 0] if rate == wanted else soxr.resample(wave[:, 0], rate, wanted))


def mixtures(
    data: Path,
    count: int,
    speakers: int,
    snr_db: tuple[float, float] | None = None,
    roomy: bool = False,
    turns: bool = False,
    rate: int = RATE,
) -> list[Mixture]:
    """Return ``count`` mixtures, which are the same for the same arguments; without noise if ``snr_db`` is None."""
    draw, generator = random.Random(SEED), torch.Generator().manual_seed(SEED)
    sexes = {row["speaker_or_class"]: row["sex"] for row in csv.DictReader((data / "manifest.csv").open())}
    files = sorted((data / FOLDERS[rate] / "valid").rglob("*.ogg"))
    noises = sorted((data / "noise48k" / "valid").rglob("*.ogg"))
    rooms = impulse_responses(32, speakers, rate, generator, t60_s=(0.15, 0.4)) if roomy else None
    found = []
    for _ in range(count):
        chosen = draw.sample(files, speakers)
        while len({path.parent for path in chosen}) < speakers:
            chosen = draw.sample(files, speakers)
        waves = [load(path, rate) for path in chosen]
        length = min(map(len, waves))
        sources = torch.stack([wave[:length] / wave[:length].square().mean().sqrt() for wave in waves])
        if turns:
            sources = sources * turn_gates(speakers, length, rate)
        if rooms is not None:
            sources = reverberate(sources, rooms[draw.randrange(len(rooms))])
        levels = [draw.uniform(-2.5, 2.5) for _ in waves] if speakers > 2 else [draw.uniform(-1.25, 1.25)]
        levels = levels if speakers > 2 else [levels[0], -levels[0]][:speakers]
        sources = 0.05 * sources * torch.tensor([10 ** (level / 20) for level in levels])[:, None]
        mix = sources.sum(0)
        if snr_db is not None:
            noise = load(draw.choice(noises), rate).repeat(1 + length // rate)[:length]
            level = mix.square().mean().sqrt() * 10 ** (-draw.uniform(*snr_db) / 20)
            mix = mix + noise * level / noise.square().mean().sqrt().clamp_min(1e-5)
        known = {sexes.get(path.parent.name) or None for path in chosen}
        found.append(Mixture(sources, mix, None if None in known else len(known) == 1, rate))
    return found


def interference(kind: str, mix: Tensor, rate: int) -> Tensor:
    """Return what a recording may have below the voices, as loud as ``mix`` (T,); DC is at 0.05."""
    time = torch.arange(len(mix)) / rate
    if kind == "dc":
        return torch.full_like(mix, 0.05)
    if kind == "rumble":
        tones = torch.stack([torch.cos(2 * math.pi * hz * time + hz) for hz in (7.0, 15.0, 22.0)])
    else:
        mains = {"hum50": 50.03, "hum60": 59.98}[kind]
        tones = torch.stack([torch.cos(2 * math.pi * k * mains * time + k) / k for k in range(1, 9)])
    tone = tones.sum(0)
    return tone * mix.square().mean().sqrt() / tone.square().mean().sqrt()


def separate(
    found: list[Mixture], command: str, arguments: list[str], kind: str | None = None
) -> tuple[list[Tensor], float]:
    """Run the command; return the estimates (S, T) in the order of the sources, and CPU-seconds per second of audio."""
    speakers, rate = len(found[0].sources), found[0].rate
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "mix").mkdir()
        for i, mixture in enumerate(found):
            mix = mixture.mix if kind is None else mixture.mix + interference(kind, mixture.mix, rate)
            soundfile.write(work / "mix" / f"{i:03d}.wav", mix.numpy(), rate, "FLOAT")
        call = [sys.executable, "-m", "audiosr_cli", command, str(work / "mix"), "-o", str(work / "tracks"), "-q"]
        before = cpu_s()
        subprocess.run([*call, "-s", str(speakers), *arguments], check=True, stdout=subprocess.DEVNULL)
        cost = (cpu_s() - before) / sum(len(mixture.mix) / rate for mixture in found)
        made = []
        for i, mixture in enumerate(found):
            names = ["speech"] if speakers == 1 else [f"speaker{s + 1}" for s in range(speakers)]
            estimate = torch.stack([load(work / "tracks" / f"{i:03d}_{name}.wav", rate) for name in names])
            made.append(estimate[list(best_order(estimate, mixture.sources))])
    return made, cost


def write(found: list[Mixture], folder: Path) -> None:
    """Write mixtures and their sources as ``audiosr bench --quality`` reads them: mix/, s1/, s2/ …"""
    for i, mixture in enumerate(found):
        for name, wave in (("mix", mixture.mix), *((f"s{s + 1}", wave) for s, wave in enumerate(mixture.sources))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / name / f"{i:03d}.wav", wave.numpy(), mixture.rate, "FLOAT")


def cpu_s() -> float:
    """Return the CPU-seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def at_8khz(waves: Tensor, rate: int) -> Tensor:
    """Resample (S, T) from ``rate`` to 8 kHz."""
    return torch.from_numpy(soxr.resample(waves.numpy().T, rate, 8000).T.copy())


def distance(made: Tensor, sources: Tensor, low: float = 0.0) -> float:
    """Return the mean LSD (AP-BWE) over the sources, above ``low`` (a fraction of the Nyquist frequency)."""
    return mean(float(lsd(m, s, low)) for m, s in zip(made, sources, strict=True))


def improvement(figure: Callable[[Tensor, Tensor], Tensor], made: Tensor, sources: Tensor, mix: Tensor) -> float:
    """Return the improvement over the mixture in dB, averaged over the sources."""
    return float((figure(made, sources) - figure(mix.expand_as(sources), sources)).mean())


def perceptual_scores(made: Tensor, sources: Tensor, mix: Tensor, rate: int) -> dict[str, float]:
    """Return perceptual metrics, averaged over the sources: of the tracks, the mixture and the references."""
    rows: dict[str, list[float]] = {}
    for name, waves in (("", made), (", mixture", mix.expand_as(sources))):
        for estimate, source in zip(waves, sources, strict=True):
            for metric, value in perceptual.compare(estimate, source, rate).items():
                rows.setdefault(metric + name, []).append(value)
    for name, waves in (("", made), (", mixture", mix[None]), (", reference", sources)):
        for wave in waves:
            for metric, value in perceptual.dnsmos(wave, rate).items():
                rows.setdefault(metric + name, []).append(value)
    return {name: mean(values) for name, values in sorted(rows.items())}


def turn_gates(speakers: int, length: int, rate: int) -> Tensor:
    """Return gains (S, T) for one speaker after the other, with fades of 10 ms."""
    at = torch.arange(length) / rate
    begin = (torch.arange(speakers) * length / speakers / rate).unsqueeze(1)
    return ((at - begin) / 0.01).clamp(0, 1) * ((begin + length / speakers / rate - at) / 0.01).clamp(0, 1)


def highs_errors(made: Tensor, sources: Tensor, mix: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """Return the absolute level error in dB of the high frequencies of a speaker who talks alone: (S,) twice.

    The first is measured on the speaker's track, the second on the track with most of the sound below ``CUTOFF_HZ``,
    which need not be the same. ``sources`` (S, T) take turns; half a second around each change is left out.
    """
    n_fft = rate // 50
    waves = torch.cat([made, mix.unsqueeze(0), sources])
    spectra = torch.stft(waves, n_fft, window=torch.hann_window(n_fft), return_complex=True).abs().square()
    first = math.ceil(CUTOFF_HZ * n_fft / rate)
    lows, highs = spectra[:, :first].sum(1), spectra[:, first:].sum(1)  # (2S + 1, L)
    turn = (spectra[len(made) + 1 :].sum(1) > 0).float()  # (S, L)
    alone = 1 - F.max_pool1d(1 - turn, 101, 1, 50)
    voice = (lows[: len(made)] @ alone.mT).argmax(0)  # of each speaker, the track
    kept = 10 * torch.log10(highs[: len(made)] @ alone.mT + 1e-9)  # (tracks, speakers)
    wanted = 10 * torch.log10(alone @ highs[len(made)] + 1e-9)
    return (kept.diagonal() - wanted).abs(), (kept.gather(0, voice[None])[0] - wanted).abs()


def lone_highs(made: Tensor, sources: Tensor, mix: Tensor, rate: int) -> dict[str, float]:
    """Return the mean of ``highs_errors`` and the share within 1 dB; highs on the wrong track are far off."""
    rows = {}
    for track, errors in zip(("their", "the voice's"), highs_errors(made, sources, mix, rate), strict=True):
        rows[f"error of a lone speaker's highs, {track} track"] = float(errors.mean())
        rows[f"lone speakers' highs within 1 dB, {track} track"] = float((errors < 1).float().mean())
    return rows


def figures(found: list[Mixture], made: list[Tensor], turns: bool, perceptually: bool = False) -> dict[str, float]:
    """Return the mean figures over all mixtures; ``turns`` says whether speakers talk one after the other."""
    rows: dict[str, list[float]] = {}
    for mixture, estimate in zip(found, made, strict=True):
        sources, mix, alike, rate = mixture
        gain = improvement(si_sdr, estimate, sources, mix)
        clean = len(sources) == 1 and bool((mix == sources[0]).all())
        level = 10 * torch.log10(estimate.square().mean(-1) / sources.square().mean(-1))
        improvements = {
            "SI-SDRi": gain,
            "SI-SDRi at 8 kHz": improvement(si_sdr, *(at_8khz(x, rate) for x in (estimate, sources, mix[None]))),
            "SDRi": improvement(sdr, estimate, sources, mix),
            **(
                {}
                if alike is None or len(sources) == 1
                else {"SI-SDRi, one sex" if alike else "SI-SDRi, both sexes": gain}
            ),
        }
        row = {
            "SI-SDR": float(si_sdr(estimate, sources).mean()),
            **({} if clean else improvements),
            "level error": float(level.abs().mean()),
            "LSD": distance(estimate, sources),
            "LSD above 4 kHz": distance(estimate, sources, 2 * CUTOFF_HZ / rate),
            **(lone_highs(estimate, sources, mix, rate) if turns else {}),
            **(perceptual_scores(estimate, sources, mix, rate) if perceptually else {}),
        }
        for key, value in row.items():
            rows.setdefault(key, []).append(value)
    medians = {f"{key}, median": median(rows[key]) for key in ("SI-SDR", "SI-SDRi") if key in rows}
    return {key: round(value, 3) for key, value in ({k: mean(v) for k, v in rows.items()} | medians).items()}


def chosen_snr_db(speakers: int, noise: str | None, snr_db: float | None) -> tuple[float, float] | None:
    """Return the lowest and the highest SNR in dB that the options ask for; None for mixtures without noise."""
    if noise == "none" or (noise is None and speakers > 1 and snr_db is None):
        return None
    if snr_db is None:
        return (0.0, 0.0) if speakers == 1 else (10.0, 20.0)
    return snr_db, snr_db


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    parser.add_argument("--mixtures", type=int, default=100)
    parser.add_argument("--speakers", type=int, default=2)
    parser.add_argument("--command", default="separate")
    parser.add_argument("--rate", type=int, default=RATE, choices=list(FOLDERS))
    parser.add_argument("--noise", nargs="?", const="add", choices=["add", "none"])
    parser.add_argument("--snr", type=float, metavar="DB")
    parser.add_argument("--rooms", action="store_true")
    parser.add_argument("--turns", action="store_true")
    parser.add_argument("--perceptual", action="store_true")
    parser.add_argument("--interference", choices=["dc", "hum50", "hum60", "rumble"])
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FOLDER",
        help="write the mixtures and their sources for `audiosr bench --quality FOLDER`, and score nothing",
    )
    options, rest = parser.parse_known_args()
    if options.noise == "none" and options.snr is not None:
        parser.error(f"--snr {options.snr:g}: there is no noise with --noise none")
    snr_db = chosen_snr_db(options.speakers, options.noise, options.snr)
    if options.turns and snr_db is not None:
        parser.error("--turns compares with the mixture, which must be without noise; use --noise none")
    if options.perceptual:
        try:
            perceptual.check_installed("--perceptual")
        except AudioSRError as error:
            parser.error(str(error))
    kinds = {"snr_db": snr_db, "roomy": options.rooms, "turns": options.turns}
    found = mixtures(options.data, options.mixtures, options.speakers, rate=options.rate, **kinds)
    if options.write is not None:
        write(found, options.write)
        return
    made, cost = separate(found, options.command, rest, options.interference)
    rows = figures(found, made, options.turns, options.perceptual)
    print(json.dumps(rows | {"CPU-s per s, with start": round(cost, 3)}))


if __name__ == "__main__":
    main()
