"""The smallest guests there are: a few instructions in an ELF file. They run even on a host whose KVM runs no kernel."""

from __future__ import annotations

import struct
from pathlib import Path

_BASE = 0x100000
_HEAD = 64 + 56
_SERIAL = bytes.fromhex("66baf803")  # mov dx, 0x3f8
_RESET = bytes.fromhex("b0fee664ebfe")  # mov al, 0xfe; out 0x64, al; jmp .


def _say(text: bytes) -> bytes:
    return b"".join(b"\xb0" + bytes([c]) + b"\xee" for c in text)  # mov al, c; out dx, al


def _wait(rounds: int) -> bytes:
    return b"\xb9" + struct.pack("<I", rounds) + b"\xff\xc9\x75\xfc"  # mov ecx, rounds; dec ecx; jnz


def talker(path: Path, *, rounds: int = 20_000) -> Path:
    """Writes dots to its console for ever."""
    turn = _say(b".") + _wait(rounds)
    code = _SERIAL + _say(b"tiny\n") + turn
    return _elf(path, code + b"\xeb" + struct.pack("<b", -(len(turn) + 2)))


def rebooter(path: Path, says: bytes = b"bye\n") -> Path:
    """Says something and resets."""
    return _elf(path, _SERIAL + _say(says) + _RESET)


def _elf(path: Path, code: bytes) -> Path:
    size = _HEAD + len(code)
    entry = _BASE + _HEAD
    head = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    program = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size, 4096)
    path.write_bytes(head + program + code)
    return path
