"""Markdown pages as tokens: what the tests of the documentation read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "weights").glob("*.md")])
GENERATED = {ROOT / "docs/reference/commands.md", ROOT / "docs/reference/config.md"}
_PARSER = MarkdownIt("commonmark").enable("table")


def name(page: Path) -> str:
    """A page's path in the repository."""
    return str(page.relative_to(ROOT))


def tokens(page: Path) -> list[Token]:
    """The tokens of a page, inline ones behind the block they are in."""
    return [
        one for token in _PARSER.parse(page.read_text(encoding="utf-8")) for one in (token, *(token.children or []))
    ]


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site name them."""
    found: set[str] = set()
    for before, token in pairwise(tokens(page)):
        if before.type == "heading_open":
            text = "".join(child.content for child in token.children or [])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            count = 0
            while (unique := f"{slug}-{count}" if count else slug) in found:
                count += 1
            found.add(unique)
    return found


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures."""
    targets = [token.attrGet("href") or token.attrGet("src") for token in tokens(page)]
    return [str(target) for target in targets if target]


def code(page: Path, *languages: str) -> list[str]:
    """The blocks of code in these languages; indented blocks have the language ''."""
    kinds = ("fence", "code_block")
    return [token.content for token in tokens(page) if token.type in kinds and token.info.strip() in languages]


def invocations(page: Path) -> Iterator[list[str]]:
    """The arguments of every `audiosr` in a page's shell code, pipes and `torchrun -m audiosr_cli` included."""
    for block in code(page, "", "console", "bash", "sh"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|<>;&")
            lexer.whitespace_split, lexer.commenters = True, "#"
            if re.search(r"(^|[|;=0-9] ?|\$ |srun .*|-m )audiosr(_cli)? [a-z]", line):
                yield from _split(list(lexer))


def _split(words: list[str]) -> Iterator[list[str]]:
    current: list[str] | None = None
    for word in [*words, ";"]:
        if set(word) <= set("|<>;&"):
            if current is not None:
                yield current
            current = None
        elif current is not None:
            current.append(word)
        elif word in ("audiosr", "audiosr_cli"):
            current = []


def sections(page: Path, level: int) -> dict[str, str]:
    """The text below each heading of a level, up to the next heading of that level or above."""
    text = page.read_text(encoding="utf-8")
    parts = re.split(rf"^#{{1,{level}}} (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
