"""What can be measured: the commands, single models, and others' models; found without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from audiosr_cli.audio.read import BLOCK, AudioReader
from audiosr_cli.audio.write import AudioWriter, OutputFormat
from audiosr_cli.bench.peers import PEERS
from audiosr_cli.checkpoints import catalogue
from audiosr_cli.errors import UsageError

if TYPE_CHECKING:
    from audiosr_cli.runtime.device import Precision

COMMANDS = {"separate": 16000, "separate-sr": 16000, "upsample": 8000}  # and the rate that each is measured at, in Hz


@dataclass(frozen=True)
class Subject:
    """One thing that is measured; ``rate`` (Hz) is that of the sound made for it, ``sources`` what it parts."""

    kind: Literal["command", "model", "peer"]
    name: str
    label: str
    task: str
    rate: int
    sources: int = 1

    def command(self, source: str, target: str, *more: str) -> list[str]:
        """Arguments of ``audiosr`` that take ``source`` to the folder ``target``."""
        model = [] if self.kind == "command" else ["--model", self.name]
        speakers = ["--speakers", str(self.sources)] if self.sources > 1 else []
        return [self.task, source, "-o", target, "-q", "--overwrite", *model, *speakers, *more]


@dataclass(frozen=True)
class Failed:
    """What could not be measured, and why."""

    model: str
    reason: str


@dataclass(frozen=True)
class Setting:
    """How subjects run: on ``source``, or on ``seconds`` of noise, which is written into ``folder``."""

    folder: Path
    source: str | None = None
    seconds: float = 1.0
    device: str = "auto"
    batch: int = 1
    threads: int | None = None
    precision: Precision = "auto"

    @property
    def options(self) -> tuple[str, ...]:
        """What commands are told of it."""
        threads = () if self.threads is None else ("--threads", str(self.threads))
        return ("--device", self.device, "--batch", str(self.batch), "--precision", self.precision, *threads)

    def job(self, subject: Subject, action: str) -> dict[str, Any]:
        """What the worker is told of a subject."""
        told = {"kind": subject.kind, "name": subject.name, "rate": subject.rate}
        how = {"device": self.device, "batch": self.batch, "threads": self.threads, "precision": self.precision}
        return {"action": action} | how | told


def find(names: list[str], against: list[str]) -> list[Subject]:
    """Commands and models by their ``names``, then peers. Raises UsageError where one cannot be measured."""
    return [_ours(name) for name in names] + [_peer(name) for name in against]


def _ours(name: str) -> Subject:
    if name in COMMANDS:
        return Subject("command", name, f"audiosr {name}", name, COMMANDS[name], 1 if name == "upsample" else 2)
    spec = catalogue.metadata(catalogue.find(name)[0])["spec"]
    if spec["task"] not in ("separate", "upsample"):
        raise UsageError(f"--models {name}: does not work on recordings by itself; name others")
    return Subject("model", name, name, spec["task"], spec["in_rate"], spec["sources"])


def _peer(name: str) -> Subject:
    if name not in PEERS:
        raise UsageError(f"--against {name}: no such peer; known: {', '.join(PEERS)}, or all that are installed")
    peer = PEERS[name]
    if not peer.installed:
        raise UsageError(f"--against {name}: {peer.package} is not installed here; pip install {peer.package}")
    return Subject("peer", name, peer.label, peer.task, peer.rate)


def all_names() -> list[str]:
    """The commands, and every bundled model that works on recordings."""
    alone = (name for name, entry in catalogue.entries().items() if {"separate", "upsample"} & {*entry["tasks"]})
    return [*COMMANDS, *alone]


def noise(seconds: float, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """White noise at -20 dBFS in blocks (1, T): one block, again and again."""
    block = (0.1 * np.random.default_rng(0).standard_normal((1, BLOCK))).astype(np.float32)
    left = round(seconds * sample_rate)
    while left > 0:
        yield block[:, :left]
        left -= BLOCK


def sound(folder: Path, seconds: float, sample_rate: int) -> str:
    """Path of a WAV of so much noise in ``folder``, written where it is not there yet."""
    path = folder / f"noise_{sample_rate}_{seconds:g}.wav"
    if not path.exists():
        with AudioWriter(path, OutputFormat("wav", "FLOAT", sample_rate, 1)) as writer:
            for block in noise(seconds, sample_rate):
                writer.write(block)
            writer.finish()
            writer.commit()
    return str(path)


def length(path: str) -> tuple[float, int]:
    """Seconds and channels of a recording, which is read once."""
    with AudioReader(path) as reader:
        return sum(block.shape[1] for block in reader.blocks()) / reader.sample_rate, reader.channels
