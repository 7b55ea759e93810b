"""Keeps unit tests inside the process: while sealed, starting a program or opening a connection is an error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator

_FORBIDDEN = frozenset(
    {
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "socket.connect",
        "socket.bind",
        "socket.getaddrinfo",
    }
)


class OutsideError(AssertionError):
    """A unit test reached outside the process."""


class _Seal:
    """Interpreter hooks cannot be taken out again, so there is one, with a switch."""

    def __init__(self) -> None:
        self.closed = False
        self._installed = False

    def install(self) -> None:
        if not self._installed:
            self._installed = True
            sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.closed and event in _FORBIDDEN:
            raise OutsideError(
                f"a unit test did {event}{arguments[:2]!r}: such a test belongs into tests/conformance or tests/e2e"
            )


_SEAL = _Seal()


@contextlib.contextmanager
def sealed() -> Generator[None]:
    _SEAL.install()
    _SEAL.closed = True
    try:
        yield
    finally:
        _SEAL.closed = False
