"""settings.py: tables become dataclasses, or say what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from audiosr_cli.config import fill
from audiosr_cli.errors import UsageError


@dataclass(frozen=True)
class Inner:
    pair: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Outer:
    count: int
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)
    given: float = 0.0


def test_fills_nested_tables_and_makes_tuples() -> None:
    made = fill(Outer, "s", {"count": 2, "names": ["x"], "inner": {"pair": [1, 2]}}, {"given": 3.0})
    assert made == Outer(2, "a", ("x",), Inner((1.0, 2.0)), 3.0)
    assert isinstance(made.inner.pair[0], float)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, r"\[s\] wants 'count'"),
        ({"count": 1, "cuont": 2}, "did you mean 'count'"),
        ({"count": 1, "given": 2.0}, "has no key 'given'"),
        ({"count": True}, "a whole number is wanted"),
        ({"count": 1, "kind": "c"}, "known: a, b"),
        ({"count": 1, "names": "x"}, "a list is wanted"),
        ({"count": 1, "inner": 3}, r"\[s.inner\]: a table is wanted"),
        ({"count": 1, "inner": {"pair": [1]}}, r"\[s.inner\] pair = \[1\]: 2 values"),
        ([], "a table is wanted"),
    ],
)
def test_says_what_is_wrong(values: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fill(Outer, "s", values, {"given": 0.0})
