"""What can be measured: the commands, single models, and peers; imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.formats import OutputFormat
from audiosr_cli.audio.read import BLOCK, AudioReader
from audiosr_cli.audio.write import AudioWriter
from audiosr_cli.bench.peers import PEERS
from audiosr_cli.checkpoints import catalogue
from audiosr_cli.errors import UsageError

if TYPE_CHECKING:
    from audiosr_cli.runtime.device import Precision

COMMANDS = {
    "separate": 16000,
    "separate-sr": 16000,
    "upsample": 8000,
}  # and the sample rate that each is measured at, in Hz


@dataclass(frozen=True)
class Candidate:
    """One thing that is measured.

    Attributes:
        kind: A whole command, a single model, or a peer.
        name: Of the command, of the model (or its path), or of the peer.
        label: Name in tables.
        task: "separate", "separate-sr" or "upsample".
        rate: Sample rate of the noise that it is measured on, in Hz.
        speakers: Number of speakers that it separates; 1 for speech alone, and for upsamplers.
    """

    kind: Literal["command", "model", "peer"]
    name: str
    label: str
    task: str
    rate: int
    speakers: int = 1

    def command(self, source: str, target: str, *more: str) -> list[str]:
        """Return the arguments of ``audiosr`` that process ``source`` into the folder ``target``."""
        model = [] if self.kind == "command" else ["--model", self.name]
        speakers = [] if self.task == "upsample" else ["--speakers", str(self.speakers)]
        return [self.task, source, "-o", target, "-q", "--overwrite", *model, *speakers, *more]


@dataclass(frozen=True)
class Failure:
    """A measurement that failed, and why."""

    model: str
    reason: str


@dataclass(frozen=True)
class BenchSettings:
    """How candidates are run.

    Attributes:
        folder: Where temporary files go.
        source: A recording to measure speed on; None for noise.
        seconds: Length of the noise.
        device: "auto", "cpu" or "cuda".
        batch: Number of windows in a batch.
        threads: Number of batches in parallel on the CPU; None for the default.
        precision: "auto", "float32" or "bf16".
        perceptual: Whether quality includes STOI, PESQ, ViSQOL and DNSMOS.
    """

    folder: Path
    source: str | None = None
    seconds: float = 1.0
    device: str = "auto"
    batch: int = 1
    threads: int | None = None
    precision: Precision = "auto"
    perceptual: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Return these settings as options of a command."""
        threads = () if self.threads is None else ("--threads", str(self.threads))
        return ("--device", self.device, "--batch", str(self.batch), "--precision", self.precision, *threads)

    def job(self, candidate: Candidate, action: str) -> dict[str, Any]:
        """Describe a job of the worker process."""
        what = {"kind": candidate.kind, "name": candidate.name, "rate": candidate.rate}
        how = {"device": self.device, "batch": self.batch, "threads": self.threads, "precision": self.precision}
        return {"action": action} | how | what


def find_candidates(names: list[str], against: list[str]) -> list[Candidate]:
    """Find commands and models by their ``names``, then the peers of ``against``.

    Raises:
        UsageError: If one cannot be measured here.
        ModelError: If a model does not exist.
    """
    return [_own(name) for name in names] + [_peer(name) for name in against]


def _own(name: str) -> Candidate:
    if name in COMMANDS:
        return Candidate("command", name, f"audiosr {name}", name, COMMANDS[name], 1 if name == "upsample" else 2)
    spec = catalogue.metadata(catalogue.find(name)[0])["spec"]
    if spec["task"] not in ("separate", "upsample"):
        raise UsageError(f"--models {name}: cannot process recordings on its own; name other models")
    return Candidate("model", name, name, spec["task"], spec["in_rate"], catalogue.speakers_of(spec))


def _peer(name: str) -> Candidate:
    if name not in PEERS:
        raise UsageError(f"--against {name}: unknown peer; known: {', '.join(PEERS)}, or all")
    peer = PEERS[name]
    if not peer.installed:
        raise UsageError(f"--against {name}: {peer.package} is not installed; pip install {peer.package}")
    return Candidate("peer", name, peer.label, peer.task, peer.rate)


def all_names() -> list[str]:
    """List the commands, and every bundled model that can process recordings on its own."""
    models = (name for name, entry in catalogue.entries().items() if {"separate", "upsample"} & {*entry["tasks"]})
    return [*COMMANDS, *models]


def noise(seconds: float, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield white noise at -20 dBFS in blocks (1, T), the same block again and again."""
    block = (0.1 * np.random.default_rng(0).standard_normal((1, BLOCK))).astype(np.float32)
    left = round(seconds * sample_rate)
    while left > 0:
        yield block[:, :left]
        left -= BLOCK


def noise_file(folder: Path, seconds: float, sample_rate: int) -> str:
    """Return the path of a WAV file of noise in ``folder``; write it if it does not exist."""
    path = folder / f"noise_{sample_rate}_{seconds:g}.wav"
    if not path.exists():
        with AudioWriter(path, OutputFormat("wav", "FLOAT", sample_rate, 1)) as writer:
            for block in noise(seconds, sample_rate):
                writer.write(block)
            writer.finish()
            writer.commit()
    return str(path)


def duration(path: str) -> tuple[float, int]:
    """Read a recording; return its duration in seconds and its number of channels."""
    with AudioReader(path) as reader:
        return sum(block.shape[1] for block in reader.blocks()) / reader.sample_rate, reader.channels
