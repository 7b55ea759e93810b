"""What a commit says of its submodules: the links in its tree, and `.gitmodules`. Both are as hostile as the repository they are in."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from firebrick.forge.errors import ForgeError
from firebrick.node.checkout.repository import Repository
from firebrick.node.errors import CheckoutError

_FILE: Final = ".gitmodules"
_MOST_TEXT: Final = 1 << 20
_LONGEST: Final = 1000


@dataclass(frozen=True, slots=True)
class Submodule:
    """`path` is where it is in the tree, `name` what its `.git` is called by; neither leads anywhere else."""

    name: str
    path: str
    url: str
    commit: str


async def read_submodules(repository: Repository, commit: str, *, most: int) -> list[Submodule]:
    """In the order of their paths, without those that say `update = none`. Raises CheckoutError for what git would not take, and for more than `most`."""
    entries = await repository.listed("ls-tree", "-r", "-z", "--full-tree", commit)
    links = dict(link for entry in entries if (link := _link(entry)) is not None)
    if not links:
        return []
    if len(links) > most:
        raise CheckoutError(f"cannot check out the submodules of {repository.origin.url}: they are more than {most}")
    return submodules_of(links, await _settings(repository, commit))


def _link(entry: str) -> tuple[str, str] | None:
    """The path and the commit of a submodule, if the entry of a tree is one."""
    meta, _, path = entry.partition("\t")
    mode, _, name = meta.partition(" ")
    return (path, name.partition(" ")[2]) if mode == "160000" else None


async def _settings(repository: Repository, commit: str) -> list[str]:
    try:
        if not await repository.listed("ls-tree", "-z", "--full-tree", commit, _FILE):
            return []
        said = await repository.git.read("config", "--blob", f"{commit}:{_FILE}", "-z", "--list", limit=_MOST_TEXT)
    except ForgeError as error:
        raise CheckoutError(f"cannot read {_FILE} of {repository.origin.url}: {error}") from error
    return [line.decode(errors="replace") for line in said.split(b"\0") if line]


def submodules_of(links: Mapping[str, str], settings: Iterable[str]) -> list[Submodule]:
    """`links` are commits by their paths, `settings` the lines of `.gitmodules` as git lists them: `submodule.<name>.<key>`, a newline, the value."""
    named: dict[str, dict[str, str]] = {}
    for line in settings:
        key, _, value = line.partition("\n")
        section, _, rest = key.partition(".")
        name, _, last = rest.rpartition(".")
        if section == "submodule" and name:
            named.setdefault(name, {})[last] = value
    by_path = {keys["path"].rstrip("/"): name for name, keys in named.items() if "path" in keys}
    found = []
    for path, commit in sorted(links.items()):
        called = by_path.get(path, "")
        keys = named.get(called, {})
        if not keys.get("url"):
            raise CheckoutError(f"No url found for submodule path '{path}' in .gitmodules")
        if keys.get("update") != "none":
            found.append(Submodule(_checked(called, "name"), _checked(path, "path"), keys["url"], commit))
    _check_apart([each.name for each in found])
    return found


def _checked(text: str, what: str) -> str:
    parts = text.split("/")
    bad = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    if bad or len(text) > _LONGEST or text.startswith("-") or not text.isprintable() or "\\" in text:
        raise CheckoutError(f"the {what} {text[:_LONGEST]!r} of a submodule is none that git would take")
    return text


def _check_apart(names: list[str]) -> None:
    """One's `.git` must not be within that of another."""
    known = set(names)
    for name in names:
        parent = posixpath.dirname(name)
        while parent:
            if parent in known:
                raise CheckoutError(f"the submodule {name!r} would be within the .git of the submodule {parent!r}")
            parent = posixpath.dirname(parent)
