"""Every fault of the list has a test that bears its number."""

from __future__ import annotations

import re
from pathlib import Path

EXPECTED = set(range(1, 104))


def test_no_fault_is_left_out() -> None:
    names = [
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^def test_((?:\d{3}_)+)", path.read_text(), re.M)
    ]
    assert {int(number) for name in names for number in name.strip("_").split("_")} == EXPECTED
