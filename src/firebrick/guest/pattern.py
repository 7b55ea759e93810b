"""The patterns that leave things out of a tree, as the agent protocol defines them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

_ANY = None
"""Stands for the component `**`."""

_Component = re.Pattern[str] | None


def matcher(patterns: Sequence[bytes]) -> Callable[[bytes], bool]:
    """Whether a relative path matches one of the patterns. Linear in the path for each, whatever the pattern."""
    names = [_component(p) for p in patterns if p and b"/" not in p.rstrip(b"/")]
    paths = [[_component(c) for c in p.strip(b"/").split(b"/")] for p in patterns if b"/" in p.rstrip(b"/")]

    def matches(path: bytes) -> bool:
        components = path.decode("latin-1").split("/")
        return any(_fits([name], components[-1:]) for name in names) or any(_fits(p, components) for p in paths)

    return matches


def _component(pattern: bytes) -> _Component:
    text = pattern.rstrip(b"/").decode("latin-1")
    if text == "**":
        return _ANY
    # What fnmatch does not know: a backslash before a byte that stands for itself, and `^` for `!` in a set.
    text = re.sub(r"\\(.)", lambda m: f"[{m[1]}]" if m[1] in "*?[" else m[1], text, flags=re.DOTALL)
    return re.compile(fnmatch.translate(text.replace("[^", "[!")))


def _fits(pattern: list[_Component], path: list[str]) -> bool:
    """Match component by component. Only the last `**` is ever tried again, one component further; at the end it needs at least one."""
    p = t = 0
    retry: tuple[int, int] | None = None
    while t < len(path):
        if p < len(pattern) and pattern[p] is _ANY:
            if p == len(pattern) - 1:
                return True
            p += 1
            retry = (p, t)
        elif p < len(pattern) and _one(pattern[p], path[t]):
            p += 1
            t += 1
        elif retry is not None:
            p, t = retry[0], retry[1] + 1
            retry = (p, t)
        else:
            return False
    return p == len(pattern)


def _one(component: _Component, name: str) -> bool:
    return component is not None and component.match(name) is not None
