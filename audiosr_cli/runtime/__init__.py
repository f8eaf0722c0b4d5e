"""The machine: devices, threads, memory, and which code runs."""
