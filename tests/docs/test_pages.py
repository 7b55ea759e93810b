"""The documentation agrees with itself and with the tree."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from firebrick.home import Home
from firebrick.node.settings import NodeSettings
from firebrick.server.settings import ServeSettings
from tests.docs.page import PAGES, ROOT, anchors, blocks, links, name, prose
from tools import cli_reference

# What `sh` blocks show is done elsewhere, because it changes the host or takes the whole CI run: by which file.
DONE_BY = {
    "make setup": "tools/setup",
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "make bench": ".ci/run",
    "make wheel": ".ci/run",
    ".ci/run": ".ci/run",
}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{name(page)} links to {target}, which has no such heading"


def test_every_page_is_reachable_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        todo += [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if "://" not in target]
    assert {page for page in PAGES if page.parent != ROOT} <= seen


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_shown_is_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.body, name(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["dev"]
    reasons = prose(ROOT / "docs/explanation/dependencies.md")
    crates = tomllib.loads((ROOT / "agent/Cargo.toml").read_text())
    names = (
        [re.split(r"[<>=\[]", requirement)[0] for requirement in wanted]
        + list(crates["dependencies"])
        + list(crates.get("dev-dependencies", {}))
    )
    assert [each for each in names if not re.search(rf"(^\| |, ){re.escape(each)}(,| \|)", reasons, re.MULTILINE)] == []


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    settings = {f"FIREBRICK_{field.upper()}" for field in ServeSettings.model_fields} | set(
        NodeSettings.__struct_fields__
    )
    assert [each for each in sorted(settings) if f"`{each}`" not in page] == []


def test_every_place_of_the_home_is_documented() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    home = Home(Path("/home"))
    places = {getattr(home, each).name for each, kind in vars(Home).items() if isinstance(kind, property)}
    assert [each for each in sorted(places) if not re.search(rf"`{re.escape(each)}/?`", page)] == []


def test_the_command_line_is_documented_as_it_is() -> None:
    assert cli_reference.TARGET.read_text() == cli_reference.page(), "run: python tools/cli_reference.py"


def test_the_readme_shows_a_real_picture() -> None:
    picture = (ROOT / "docs/picture.svg").read_text()
    assert picture.startswith("<svg")
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", ""), "a picture in a README loads nothing"


def test_no_word_of_the_glossary_is_missing_its_meaning() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    words = [word for word, _ in rows]
    assert words == sorted(words, key=str.lower)
    assert all(meaning.strip() for _, meaning in rows)


def test_every_row_of_the_command_line_has_two_columns() -> None:
    rows = [line for line in cli_reference.page().splitlines() if line.startswith("| `")]
    assert [row for row in rows if len(re.findall(r"(?<!\\)\|", row)) != 3] == []
