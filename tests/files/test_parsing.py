"""files/parsing.py: JSON and TOML, and nesting that would exhaust the stack."""

from __future__ import annotations

import pytest

from audiosr_cli.files.parsing import parse_json, parse_toml

DEPTHS = [101, 999, 100_000]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_an_error_of_the_text(depth: int, opening: str, closing: str) -> None:
    with pytest.raises(ValueError, match="nested more than 100 levels"):
        parse_json(opening * depth + "1" + closing * depth)
    with pytest.raises(ValueError, match=r"nested|line 1"):
        parse_json(opening * depth)


@pytest.mark.parametrize("depth", DEPTHS)
def test_deep_nesting_of_toml_is_an_error_of_the_text(depth: int) -> None:
    with pytest.raises(ValueError, match="nested more than 100 levels"):
        parse_toml("a = " + "[" * depth + "]" * depth)


def test_what_is_not_nested_deeply_is_parsed() -> None:
    assert parse_json('{"a": [1, {"b": "[[["}]}') == {"a": [1, {"b": "[[["}]}
    assert parse_toml("[a]\nb = [[1], []]") == {"a": {"b": [[1], []]}}
    nested = parse_json("[" * 99 + "]" * 99)
    for _ in range(98):
        (nested,) = nested
    assert nested == []
