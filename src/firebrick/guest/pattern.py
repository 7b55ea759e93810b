"""The patterns that leave things out of a tree, as the agent protocol defines them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from firebrick.guest.errors import TreeError


def matcher(patterns: Sequence[bytes]) -> Callable[[bytes], bool]:
    """Whether a relative path matches one of the patterns as a whole. Raises TreeError for a pattern that makes no sense."""
    expressions = [_expression(p.strip(b"/").split(b"/")) for p in patterns if p.strip(b"/")]
    if not expressions:
        return lambda _path: False
    try:
        compiled = re.compile(b"|".join(expressions), re.DOTALL)
    except re.error as e:
        raise TreeError(f"cannot use the patterns {[*patterns]!r}: {e}", hint="Check what is between brackets.") from e
    return lambda path: compiled.fullmatch(path) is not None


def _expression(components: list[bytes]) -> bytes:
    """`**` stands for any number of components, none included; whatever separates it from its neighbours goes with it."""
    built = b""
    for i, component in enumerate(components):
        last = i == len(components) - 1
        if component == b"**":
            built += b".*" if last else b"(?:[^/]+/)*"
        else:
            built += _component(component) + (b"" if last else b"/")
    # `a/**` matches `a` as well, so the slash before a final `**` may be missing.
    return re.sub(rb"/\.\*\Z", b"(?:/.*)?", built) if components[-1] == b"**" else built


def _component(pattern: bytes) -> bytes:
    built = b""
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            built += b"[^/]*"
        elif byte == b"?":
            built += b"[^/]"
        elif byte == b"[" and (end := pattern.find(b"]", at + 1 + (pattern[at : at + 1] == b"!"))) > 0:
            built += _set(pattern[at:end])
            at = end + 1
        else:
            built += re.escape(byte)
    return built


def _set(members: bytes) -> bytes:
    negated = members.startswith(b"!")
    escaped = re.sub(rb"([\\\[\]^&~|])", rb"\\\1", members[negated:])
    return b"(?!/)[" + (b"^" if negated else b"") + escaped + b"]"
