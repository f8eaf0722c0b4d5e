"""Run a command and measure it: ``python waiter.py DESCRIPTOR COMMAND...``; exits with the command's exit code.

A process inherits the peak memory of the one that forked it. So this small process stands between: it imports nothing
large, and what it starts has a peak of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time


def main() -> int:
    """Write {wall_s, cpu_s, peak_bytes} as JSON to the descriptor; return the command's exit code."""
    begin = time.perf_counter()
    process = subprocess.Popen(sys.argv[2:])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    result = {
        "wall_s": time.perf_counter() - begin,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    os.write(int(sys.argv[1]), json.dumps(result).encode())
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main())
