"""The shortest page server there is: what the one in Rust is measured against. `python python_pager.py SOCKET MEMORY`."""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Final

_COPY: Final = 0xC028AA03
_PAGE: Final = 4096
_MESSAGE: Final = struct.Struct("=B7xQQ8x")


def main() -> None:
    path, memory = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as listener, Path(memory).open("r+b") as file:
        source = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(source))
        listener.bind(path)
        listener.listen(1)
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        peer, _ = listener.accept()
        text, (uffd,), _, _ = socket.recv_fds(peer, 1 << 16, 1)
        (region,) = json.loads(text)
        _serve(uffd, region["base_host_virt_addr"], start + region["offset"])


def _serve(uffd: int, host: int, source: int) -> None:
    poll = select.poll()
    poll.register(uffd, select.POLLIN)
    with open(uffd, "rb", buffering=0) as messages:
        while poll.poll():
            data = messages.read(_MESSAGE.size) or b""
            for _, _, address in _MESSAGE.iter_unpack(data):
                fcntl.ioctl(uffd, _COPY, struct.pack("=QQQQq", address, source + address - host, _PAGE, 0, 0))


if __name__ == "__main__":
    main()
