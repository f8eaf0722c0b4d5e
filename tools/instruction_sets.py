"""Run the tests as older processors would, one instruction set after the other, and print a table.

`python tools/instruction_sets.py [-- PYTEST_ARGUMENT ...]`, or `make test-isa`. The environment limits the kernels that
torch and oneDNN choose, so one machine stands for several. Sets that this processor does not have are left out. The
output of each run goes to build/instruction_sets/. The exit code is 1 if a test fails anywhere.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Name → environment. "default" is torch's name for plain C++; SSE4.1 is the least that oneDNN knows.
SETS = {
    "native": {},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
VARIABLES = {name for environment in SETS.values() for name in environment}
COUNTS = ("passed", "failed", "errors", "skipped")


@dataclass(frozen=True)
class Result:
    """The result of one run: counts by name, the names of failed tests, exit code and seconds."""

    counts: dict[str, int]
    failed: list[str]
    code: int
    seconds: float


def available() -> list[str]:
    """List the sets that this processor has."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    own = subprocess.run([sys.executable, "-c", code], env=environment({}), capture_output=True, text=True, check=True)
    missing = {"AVX512": (), "AVX2": ("avx512",)}.get(own.stdout.strip(), ("avx512", "avx2"))
    return [name for name in SETS if name not in missing]


def environment(values: dict[str, str]) -> dict[str, str]:
    """Return the environment of this process with ``values`` in place of its own choice of instructions."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES} | values


def parse(output: str) -> tuple[dict[str, int], list[str]]:
    """Read the counts and the names of failed tests from what pytest prints."""
    last = next((line for line in reversed(output.splitlines()) if re.search(r"\d+ \w+.* in [\d.]+s", line)), "")
    found = {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", last.split(" in ")[0])}
    found["errors"] = found.get("errors", 0) + found.get("error", 0)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+?(?:\[.*?\])?)(?: - .*)?$", output, re.M)
    return {name: found.get(name, 0) for name in COUNTS}, failed


def run(name: str, threads: int, arguments: list[str]) -> Result:
    """Run pytest under the set ``name``."""
    values = SETS[name] | {"AUDIOSR_TEST_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    log = ROOT / "build" / "instruction_sets" / f"{name}-{threads}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-rfE", *arguments]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        code = subprocess.run(
            command, cwd=ROOT, env=environment(values), stdout=stream, stderr=subprocess.STDOUT, check=False
        ).returncode
    counts, failed = parse(log.read_text(encoding="utf-8", errors="replace"))
    return Result(counts, failed, code, time.monotonic() - start)


def main() -> int:
    """Print a row as soon as a run ends, and the names of all failed tests at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), help="instead of all that this processor has")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="numbers of threads (default: 1 2)")
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    options = parser.parse_args()
    columns = ("instructions", "threads", *COUNTS, "minutes", "exit code")
    print(f"| {' | '.join(columns)} |\n|---{'|---:' * (len(columns) - 1)}|", flush=True)
    failures, codes = list[str](), list[int]()
    for name in options.sets or available():
        for threads in options.threads:
            result = run(name, threads, options.arguments)
            cells = [name, threads, *result.counts.values(), f"{result.seconds / 60:.2f}", result.code]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            failures += [f"{name}, {threads} threads: {test}" for test in result.failed]
            codes.append(result.code)
    print(*failures, sep="\n", end="\n" if failures else "")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
