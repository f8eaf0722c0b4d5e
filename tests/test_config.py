"""config.py: tables become dataclasses, and errors name what is wrong."""

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
    fixed: float = 0.0


def test_nested_tables_and_lists_become_dataclasses_and_tuples() -> None:
    output = fill(Outer, "s", {"count": 2, "names": ["x"], "inner": {"pair": [1, 2]}}, {"fixed": 3.0})
    assert output == Outer(2, "a", ("x",), Inner((1.0, 2.0)), 3.0)
    assert isinstance(output.inner.pair[0], float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"\[s\]: the key 'count' is missing"),
        ({"count": 1, "cuont": 2}, "did you mean 'count'"),
        ({"count": 1, "fixed": 2.0}, "has no key 'fixed'"),
        ({"count": True}, "expected an integer"),
        ({"count": 1, "kind": "c"}, "must be one of a, b"),
        ({"count": 1, "names": "x"}, "expected a list"),
        ({"count": 1, "inner": 3}, r"\[s.inner\]: expected a table"),
        ({"count": 1, "inner": {"pair": [1]}}, r"\[s.inner\] pair = \[1\]: expected 2 values"),
        ([], "expected a table"),
    ],
)
def test_errors_name_the_key_and_the_expected_type(values: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fill(Outer, "s", values, {"fixed": 0.0})
