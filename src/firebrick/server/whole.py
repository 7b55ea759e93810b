"""Files of a build that are there whole or not at all. Only one task writes such a file; who is killed meanwhile leaves the beginning of one beside it."""

from __future__ import annotations

from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """In place of what was there. Raises OSError."""
    partial = _partial(file)
    partial.write_bytes(content)
    partial.replace(file)


def forget(file: Path) -> None:
    """Remove it, and what may be left of one that was being written. Idempotent."""
    file.unlink(missing_ok=True)
    _partial(file).unlink(missing_ok=True)


def _partial(file: Path) -> Path:
    return file.with_suffix(".partial")
