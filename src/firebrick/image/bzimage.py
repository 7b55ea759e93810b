"""The ELF inside a bzImage: what Firecracker boots. The layout is that of Linux's x86 boot protocol."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from firebrick.image.errors import BuildError
from firebrick.process import run

_SETUP_SECTORS: Final = 0x1F1
_MAGIC: Final = 0x202
_PAYLOAD: Final = 0x248
_UNPACKERS: Final = {
    b"\x02\x21\x4c\x18": ("lz4", "--decompress", "--stdout"),
    b"\x1f\x8b": ("gzip", "--decompress", "--stdout"),
    b"\xfd7zXZ": ("xz", "--decompress", "--stdout", "--single-stream"),
    b"\x28\xb5\x2f\xfd": ("zstd", "--decompress", "--stdout"),
}
_ELF: Final = b"\x7fELF"
_ELF_LIMIT: Final = 512 << 20


def payload(image: bytes) -> bytes:
    """The compressed kernel inside a bzImage, without the length that follows it."""
    if image[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise BuildError("the kernel is no bzImage: its header has no signature")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTORS] or 4) + 1) * 512 + offset
    if start + length > len(image) or length < 8:
        raise BuildError("the kernel is no complete bzImage: its payload lies beyond its end")
    return image[start : start + length - 4]


async def unpack_elf(path: Path) -> bytes:
    """The uncompressed kernel of the bzImage at `path`."""
    packed = payload(path.read_bytes())
    if packed.startswith(_ELF):
        return packed
    argv = next((argv for magic, argv in _UNPACKERS.items() if packed.startswith(magic)), None)
    if argv is None:
        raise BuildError(f"the kernel {path.name} is compressed in a way that is not known here: {packed[:4].hex()}")
    elf = (await run(argv, input=packed, limit=_ELF_LIMIT, timeout=60)).stdout
    if not elf.startswith(_ELF):
        raise BuildError(f"what the kernel {path.name} holds is no ELF")
    return elf
