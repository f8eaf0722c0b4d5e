"""Runs a command and says what it took: ``python waiter.py DESCRIPTOR COMMAND...``; leaves with its exit code.

A process inherits the peak memory of the one that forked it, so this small one stands between: it imports nothing
that is large, and what is measured through it has a peak of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time


def main() -> int:
    """Write {wall_s, cpu_s, peak_bytes} as JSON to the descriptor, and return the command's exit code."""
    begun = time.perf_counter()
    process = subprocess.Popen(sys.argv[2:])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    spent = {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    os.write(int(sys.argv[1]), json.dumps(spent).encode())
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main())
