"""Recordings in all formats, encoded by tools/format_table.py."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tools"))

format_table = import_module("format_table")
fuzz_media = import_module("fuzz_media")
FORMATS, mux, signal = format_table.FORMATS, format_table.mux, format_table.signal
