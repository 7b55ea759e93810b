"""Directory listings on the wire: MessagePack maps, one after the other, cut apart without trusting them."""

from __future__ import annotations

import msgspec

from firebrick.guest.errors import ProtocolError
from firebrick.guest.message import Entry

MAX_ENTRY = 1 << 13
"""Bytes of one entry at most: a name of 255 and a target of 4095 bytes are far below."""

_FIXED = {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
"""Bytes of nil, booleans and integers by their first byte."""

_COUNTED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes of the length that follows the first byte of a string."""


class EntryDecoder:
    """Feed it the data of a listing, in pieces of any size."""

    def __init__(self) -> None:
        self._held = b""
        self._decode = msgspec.msgpack.Decoder(Entry).decode

    def feed(self, piece: bytes) -> list[Entry]:
        """The entries that `piece` completes. Raises ProtocolError for anything that is no entry."""
        data = self._held + piece
        found = []
        at = 0
        while (end := _map_end(data, at)) is not None:
            found.append(self._entry(data[at:end]))
            at = end
        self._held = data[at:]
        if len(self._held) > MAX_ENTRY:
            raise ProtocolError(f"the guest listed an entry of more than {MAX_ENTRY} bytes")
        return found

    def finish(self) -> None:
        """Raises ProtocolError if the listing ended in the middle of an entry."""
        if self._held:
            raise ProtocolError("the guest ended a listing in the middle of an entry")

    def _entry(self, data: bytes) -> Entry:
        try:
            entry = self._decode(data)
        except (msgspec.MsgspecError, RecursionError) as e:
            raise ProtocolError(f"the guest listed something that is no entry: {e}") from e
        check_name(entry)
        return entry


def check_name(entry: Entry) -> None:
    """Raises ProtocolError for a name that no entry of a directory has."""
    if entry.name in (b"", b".", b"..") or b"/" in entry.name or b"\0" in entry.name:
        raise ProtocolError(f"the guest listed an entry with the name {entry.name!r}")


def _map_end(data: bytes, at: int) -> int | None:
    """Where the flat map at `at` ends, None while it is incomplete."""
    if at >= len(data):
        return None
    first = data[at]
    if 0x80 <= first <= 0x8F:
        pairs, at = first & 0x0F, at + 1
    elif first == 0xDE:
        pairs, at = int.from_bytes(data[at + 1 : at + 3]), at + 3
    else:
        raise ProtocolError(f"the guest listed something that begins with {first:#x} and is no entry")
    for _ in range(2 * pairs):
        if at >= len(data):
            return None
        at += _value_size(data, at)
    return at if at <= len(data) else None


def _value_size(data: bytes, at: int) -> int:
    """Bytes of the value at `at`, which may reach beyond the end of `data`. Only values without parts occur in an entry."""
    first = data[at]
    if first <= 0x7F or first >= 0xE0:
        return 1
    if 0xA0 <= first <= 0xBF:
        return 1 + (first & 0x1F)
    if first in _FIXED:
        return _FIXED[first]
    if first in _COUNTED:
        width = _COUNTED[first]
        return 1 + width + int.from_bytes(data[at + 1 : at + 1 + width])
    raise ProtocolError(f"the guest listed an entry with a value of the kind {first:#x}")
