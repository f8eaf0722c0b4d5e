"""Read damaged files of every format: python tools/fuzz_media.py --files 10000 [--seed 1] [--keep FOLDER]

Each file is one of tools/format_table.py's, half a second long, with bytes changed, overwritten, cut out, repeated or
appended. A child process reads it; whatever happens but a clean end, an InputError or a warning is a failure: another
exception, a signal, more than --seconds of time or --megabytes of memory beyond what reading healthy files takes.
"""

from __future__ import annotations

import argparse
import collections
import resource
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from format_table import FORMATS, signal

from audiosr_cli.audio.read import AudioReader
from audiosr_cli.errors import InputError

_MAX_FRAMES = 1 << 24  # of output, after which a file is left: silence may be long

_SIZES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80")


def originals(seconds: float = 0.5) -> dict[str, bytes]:
    """Return a healthy file of each format, by its suffix and name."""
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            path = Path(folder, f"a.{form.suffix}")
            form.write(path, signal(form.rate, form.channels, seconds), form.rate)
            files[f"{form.name}.{form.suffix}"] = path.read_bytes()
    return files


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """Return ``content`` with one to eight changes, more of them near the start, where headers are."""
    data = bytearray(content)
    for _ in range(random.integers(1, 9)):
        if not data:
            break
        reach = len(data) if random.random() < 0.4 else min(len(data), 512)
        at, length = int(random.integers(reach)), int(random.integers(1, 64))
        kind = random.integers(7)
        if kind == 0:
            data[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            data[at] = int(random.integers(256))
        elif kind == 2:
            data[at : at + 4] = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"][
                random.integers(4)
            ]
        elif kind == 3:
            data[at : at + length] = random.bytes(length)
        elif kind == 4:
            del data[at : at + length]
        elif kind == 5:
            data[at:at] = data[at : at + 16 * length]
        else:
            del data[max(1, int(random.integers(len(data)))) :]
    return bytes(data)


def read(path: Path) -> str:
    """Read a file to its end; return what became of it."""
    try:
        with AudioReader(path) as reader:
            frames = 0
            for block in reader.blocks():
                assert block.shape[0] == reader.channels
                assert block.dtype == np.float32
                frames += block.shape[1]
                if frames > _MAX_FRAMES:
                    return "endless"
            assert len(reader.warnings) < 40
            return "warned" if reader.warnings else "read"
    except InputError:
        return "refused"


def work(first: int, last: int, seed: int, keep: Path) -> None:
    """Read the mutated files with the numbers from ``first`` up to ``last``; print a line before and after each."""
    files = sorted(originals().items())
    for i in range(first, last):
        random = np.random.default_rng([seed, i])
        name, content = files[random.integers(len(files))]
        path = keep / f"{i}.{name.rsplit('.', 1)[1]}"
        path.write_bytes(mutate(content, random))
        print(f"{i} begins {name}", flush=True)
        started = time.monotonic()
        outcome = read(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{i} {outcome} {time.monotonic() - started:.2f} {peak}", flush=True)
        path.unlink()


@dataclass
class Result:
    """What became of all files.

    Attributes:
        outcomes: How many were read, warned of, refused or endless.
        failures: What went wrong, with the file's number.
        slowest_s: The longest time of one file.
        peak_mib: The most memory of a child.
    """

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_mib: int = 0


def run(files: int, seed: int, keep: Path, seconds: float = 60.0, megabytes: int = 1500) -> Result:
    """Read ``files`` mutated files in child processes; those that fail stay in ``keep``."""
    result, at = Result(), 0
    while at < files:
        at = _child(at, files, seed, keep, seconds, result)
    if result.peak_mib > megabytes:
        result.failures.append(f"a child took {result.peak_mib} MiB")
    return result


def _child(first: int, last: int, seed: int, keep: Path, seconds: float, result: Result) -> int:
    """Read files until one fails; return the number of the first that is left."""
    command = [sys.executable, __file__, "--worker", str(first), str(last), "--seed", str(seed), "--keep", str(keep)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    begun = f"{first} begins"
    while True:
        ready, _, _ = select.select([child.stdout], [], [], seconds)
        line = child.stdout.readline().strip() if ready else "stuck"
        if not line or line == "stuck":
            break
        number, outcome, *rest = line.split()
        if outcome == "begins":
            begun = line
            continue
        result.outcomes[outcome] += 1
        result.slowest_s, result.peak_mib = max(result.slowest_s, float(rest[0])), max(result.peak_mib, int(rest[1]))
        first = int(number) + 1
    child.kill()
    _, said = child.communicate()
    if first >= last and not said.strip():
        return last
    reason = f"more than {seconds} s" if line == "stuck" else f"exit code {child.returncode}"
    result.failures.append(f"{begun}: {reason}: {said.strip()[-300:]}")
    return first + 1


def main() -> None:
    """Read files and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for files that fail")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep = options.keep or Path(tempfile.mkdtemp())
    keep.mkdir(parents=True, exist_ok=True)
    if options.worker:
        work(*options.worker, options.seed, keep)
        return
    result = run(options.files, options.seed, keep)
    for failure in result.failures:
        print(failure)
    print(dict(result.outcomes), f"slowest {result.slowest_s:.1f} s, peak {result.peak_mib} MiB, kept in {keep}")
    sys.exit(bool(result.failures))


if __name__ == "__main__":
    main()
