"""A batch that is killed twice and resumed, against the same batch in one go: `python tools/batch_resume.py [FOLDER]`.

1,000 recordings of a fifth of a second, 20 of them damaged, resampled by two workers; then 40 (2 damaged) upsampled by
a model. After each kill -9 of the whole group the run goes on by its manifest. At the end every output has to be the
clean run's, and every damaged recording an error that names it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

COMMAND = [sys.executable, "-m", "audiosr_cli", "upsample", "--jobs", "2"]
RATE, FRAMES, KILLS = 8000, 1600, 2


def make(folder: Path, count: int, bad: int) -> None:
    """``count`` recordings of noise, every (count / bad)-th of them none."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"{i:04}.wav"
        if i % (count // bad) == 0:
            path.write_bytes(b"RIFF but nothing else")
        else:
            soundfile.write(path, rng.standard_normal(FRAMES) / 10, RATE)


def finished(manifest: Path) -> int:
    """How many recordings the manifest says are done or failed."""
    return manifest.read_bytes().count(b'"settings"') if manifest.exists() else 0


def killed(command: list[str], manifest: Path, after: int) -> int:
    """Run until ``after`` more are finished, then kill -9 the whole group; how many are finished."""
    goal = finished(manifest) + after
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while finished(manifest) < goal and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return finished(manifest)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def demonstrate(place: Path, name: str, count: int, bad: int, options: list[str]) -> bool:
    """Print one line; whether all is as it has to be."""
    source, manifest = place / f"{name}_in", place / f"{name}.jsonl"
    make(source, count, bad)
    command = [*COMMAND, str(source), *options]
    begun = time.monotonic()
    clean = subprocess.run([*command, "-o", str(place / f"{name}_clean")], capture_output=True)
    clean_s = time.monotonic() - begun
    resumed = [*command, "-o", str(place / f"{name}_out"), "--manifest", str(manifest), "--resume"]
    begun = time.monotonic()
    stops = [killed(resumed, manifest, count // 3) for _ in range(KILLS)]
    last = subprocess.run([*resumed, "--json", "--progress", "none"], capture_output=True)
    events = [json.loads(line) for line in last.stdout.splitlines()]
    failed = {Path(event["input"]).name for event in events if event["event"] == "failed"}
    expected = {f"{i:04}.wav" for i in range(0, count, count // bad)}
    made, wanted = contents(place / f"{name}_out"), contents(place / f"{name}_clean")
    same = sum(made.get(key) == value for key, value in wanted.items())
    fine = (clean.returncode, last.returncode, failed, made == wanted) == (3, 3, expected, True)
    print(
        f"{name}: killed at {', '.join(map(str, stops))} of {count}; {same} of {len(wanted)} outputs identical to the "
        f"clean run's, {len(made)} files in the folder, {len(failed)} named failures, exit {last.returncode}; "
        f"{time.monotonic() - begun:.1f} s, clean {clean_s:.1f} s: {'as it should be' if fine else 'WRONG'}"
    )
    return fine and len(wanted) == count - bad


def main() -> None:
    """Both batches; exit code 1 where one is not as it should be."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        fine = [
            demonstrate(Path(place), "resampled", 1000, 20, ["--model", "none"]),
            demonstrate(Path(place), "upsampled", 40, 2, ["--cutoff", "3800"]),
        ]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
