"""Small files that are there as a whole, or as they were before, whatever happens to who writes them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from firebrick.machine.errors import HostError


def write(file: Path, content: bytes) -> None:
    """In one step, readable for their owner alone. Nothing else is left where it fails. Raises HostError."""
    with prepared(file, content):
        pass


@contextlib.contextmanager
def prepared(file: Path, content: bytes) -> Iterator[None]:
    """The file has this content from the end of the context on, unless that raises; what can fail for want of space has happened before it begins.

    Raises HostError."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with _told(file):
            draft.touch(mode=0o600, exist_ok=False)
            draft.write_bytes(content)
        yield
        with _told(file):
            draft.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"cannot write {file}: {error.strerror}", hint="See that its disk has space.") from error
