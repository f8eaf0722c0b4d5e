"""Pages of the documentation are whole: tables, links, anchors, lengths, and pages that are generated."""

from __future__ import annotations

import json
import re
import runpy
from itertools import pairwise
from pathlib import Path

import doc_pages
import pytest
from doc_pages import ROOT
from test_layers import ROWS

PACKAGE = ROOT / "audiosr_cli"


@pytest.mark.parametrize("page", doc_pages.PAGES, ids=doc_pages.name)
def test_every_row_of_a_table_is_in_a_table_with_a_header(page: Path) -> None:
    lines, inside = page.read_text(encoding="utf-8").splitlines(), set()
    for token in doc_pages.tokens(page):
        if token.map and token.type in ("table_open", "fence", "code_block", "html_block"):
            inside |= set(range(*token.map))
    orphans = [i + 1 for i, line in enumerate(lines) if line.lstrip().startswith("|") and i not in inside]
    assert not orphans, f"{doc_pages.name(page)}: rows outside of a table: {orphans}"


def test_tables_of_the_readme_have_names_for_their_columns() -> None:
    tokens = doc_pages.tokens(ROOT / "README.md")
    headers = [after.content for before, after in pairwise(tokens) if before.type == "th_open"]
    assert headers
    assert all(headers)


@pytest.mark.parametrize("page", doc_pages.PAGES, ids=doc_pages.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for link in doc_pages.links(page):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in doc_pages.anchors(target)):
            broken.append(link)
    assert not broken, f"{doc_pages.name(page)}: {broken}"


@pytest.mark.parametrize(
    "page", [page for page in doc_pages.PAGES if ROOT / "docs" in page.parents], ids=doc_pages.name
)
def test_the_site_renders_the_same_blocks_as_the_repository(page: Path) -> None:
    """MkDocs' parser needs more indentation and more empty lines than GitHub's; both must find the same blocks."""
    markdown = pytest.importorskip("markdown")  # comes with the extra `docs`
    pytest.importorskip("pymdownx")
    html = markdown.markdown(page.read_text(encoding="utf-8"), extensions=["tables", "pymdownx.superfences"])
    kinds = {"table": "table_open", "li": "list_item_open", "tr": "tr_open", "pre": "fence", "a": "link_open"}
    for tag, kind in kinds.items():
        count = sum(token.type in (kind, "code_block" if tag == "pre" else kind) for token in doc_pages.tokens(page))
        assert len(re.findall(rf"<{tag}[ >]", html)) == count, tag


def test_the_readme_has_at_most_200_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_newest_release_in_the_changelog_has_less_than_100_lines() -> None:
    releases = re.split(r"^## (?=\d)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1:]
    assert len(releases[0].splitlines()) < 100


def test_generated_pages_are_up_to_date() -> None:
    generate = runpy.run_path(str(ROOT / "tools/docs_reference.py"))
    for name, page in generate["PAGES"].items():
        assert (generate["FOLDER"] / name).read_text() == page(), f"{name} is out of date; run `make reference`"


def test_the_architecture_page_names_every_folder_and_file_on_its_way() -> None:
    page = ROOT / "docs/architecture.md"
    named = set(re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", page.read_text()))
    missing = [name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()]
    assert not missing
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= named, folders - named


def test_the_picture_of_the_layers_shows_the_rows_that_imports_obey() -> None:
    rows: dict[str, set[str]] = {}
    picture = (ROOT / "docs/images/layers.svg").read_text(encoding="utf-8")
    for y, name in re.findall(r'y="(\d+)" text-anchor="middle" font-weight="bold">(\w+)<', picture):
        rows.setdefault(y, set()).add(name)
    assert [rows[y] for y in sorted(rows, key=int, reverse=True)] == ROWS


def test_every_environment_variable_is_documented() -> None:
    page = (ROOT / "docs/reference/environment.md").read_text()
    reads = re.compile(r"(?:environ(?:\.get\(|\.setdefault\(|\[)|envvar=)\"(\w+)\"")
    used = {name for path in PACKAGE.rglob("*.py") for name in reads.findall(path.read_text())}
    assert used
    assert all(f"`{name}`" in page for name in used), used


def test_every_bundled_model_has_a_card_in_the_index() -> None:
    index = (ROOT / "docs/models/index.md").read_text()
    for name in json.loads((ROOT / "weights/catalogue.json").read_text()):
        assert f"[{name}]({name}.md)" in index, name
        card = (ROOT / f"docs/models/{name}.md").read_text()
        for heading in ("Intended use", "Data", "Training", "Evaluation", "Limitations"):
            assert f"## {heading}\n" in card, (name, heading)


def test_every_event_of_training_is_documented() -> None:
    page = (ROOT / "docs/guides/pipelines.md").read_text()
    names = {name for path in PACKAGE.rglob("*.py") for name in re.findall(r'"event": "([a-z_]+)"', path.read_text())}
    assert {"train", "valid"} <= names
    assert not [name for name in names - {"step"} if f"`{name}`" not in page]  # steps only move the bar
