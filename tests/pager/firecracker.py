"""Plays Firecracker to a page server, in a process of its own: a page fault that nobody answers stops a process for good.

Commands come as JSON lines on standard input, each is answered with one JSON line. Memory is touched through libc, which lets go of the
interpreter meanwhile, so several threads can wait for pages at once.
"""

from __future__ import annotations

import array
import ctypes
import hashlib
import json
import mmap
import os
import random
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PAGE = 4096
HUGE_PAGE = 2 << 20
_USERFAULTFD = 323
_UFFDIO_API = 0xC018AA3F
_UFFDIO_REGISTER = 0xC020AA00
_EVENT_REMOVE = 1 << 3
_MAP_HUGE_2MB = 21 << 26
_MAP_HUGETLB = 0x40000
_MADV_DONTNEED = 4

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]


def checked(result: int, what: str) -> int:
    if result in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


class Uffd:
    def __init__(self) -> None:
        self.fd = checked(libc.syscall(_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK), "userfaultfd")
        request = array.array("Q", [0xAA, _EVENT_REMOVE, 0])
        checked(libc.ioctl(self.fd, _UFFDIO_API, request.buffer_info()[0]), "UFFDIO_API")

    def register(self, start: int, length: int) -> None:
        request = array.array("Q", [start, length, 1, 0])
        checked(libc.ioctl(self.fd, _UFFDIO_REGISTER, request.buffer_info()[0]), "UFFDIO_REGISTER")


class Firecracker:
    """`regions` are [offset in the memory file, size] pairs."""

    def __init__(self) -> None:
        self.uffd = Uffd()
        self.regions: list[tuple[int, int, int]] = []
        self.page_size = PAGE
        self.connection: socket.socket | None = None

    def map(self, regions: list[list[int]], page_size: int = PAGE) -> None:
        self.page_size = page_size
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if page_size == HUGE_PAGE:
            flags |= _MAP_HUGETLB | _MAP_HUGE_2MB
        for offset, size in regions:
            start = checked(libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0), "mmap")
            self.uffd.register(start, size)
            self.regions.append((offset, size, start))

    def shake(self, path: str, message: str | None = None, fds: int = 1, other: bool = False) -> None:
        """Hand over; with `message` that one, with `other` a descriptor that is no userfaultfd."""
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)
        text = message if message is not None else json.dumps([self._mapping(*region) for region in self.regions])
        if not text:
            self.connection.close()
        elif fds:
            socket.send_fds(self.connection, [text.encode()], [0 if other else self.uffd.fd] * fds)
        else:
            self.connection.sendall(text.encode())

    def _mapping(self, offset: int, size: int, start: int) -> dict[str, int]:
        page = self.page_size
        return {
            "base_host_virt_addr": start,
            "size": size,
            "offset": offset,
            "page_size": page,
            "page_size_kib": page,
        }

    def address(self, offset: int) -> int:
        for begin, size, start in self.regions:
            if begin <= offset < begin + size:
                return start + offset - begin
        raise ValueError(f"{offset} is in no region")

    def read(self, offset: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        libc.memcpy(buffer, self.address(offset), size)
        return buffer.raw

    def digests(self, pages: list[int], threads: int = 1) -> list[str]:
        """Of each page, read in this order by so many threads."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda page: hashlib.sha256(self.read(page * PAGE, PAGE)).hexdigest(), pages))

    def read_text(self, offset: int, size: int) -> str:
        return self.read(offset, size).decode()

    def churn(self, offset: int, pages: int, rounds: int) -> list[int]:
        """Give pages back again and again while eight threads read all of them; those that were not zeros after they had been given back."""
        self.remove(offset, pages * PAGE)
        places = [offset + page * PAGE for page in range(pages)]
        with ThreadPoolExecutor(9) as pool:
            removals = pool.submit(lambda: [self.remove(offset, pages * PAGE) for _ in range(rounds)])
            wrong: set[int] = set()
            while True:
                last = removals.done()
                found = pool.map(lambda place: any(self.read(place, PAGE)), places)
                wrong.update(place // PAGE for place, dirty in zip(places, found, strict=True) if dirty)
                if last:
                    return sorted(wrong)

    def sweep(self, size: int, scattered: bool = False) -> float:
        """Seconds to read the first region: from its start in large pieces, or a little of each page in an order of chance."""
        start = self.address(0)
        piece = 64 if scattered else 1 << 20
        places = list(range(start, start + size, PAGE if scattered else piece))
        if scattered:
            random.Random(7).shuffle(places)
        buffer = ctypes.create_string_buffer(piece)
        began = time.perf_counter()
        for place in places:
            libc.memcpy(buffer, place, piece)
        return time.perf_counter() - began

    def map_file(self, path: str, size: int) -> None:
        """Firecracker's other way: the memory file mapped privately."""
        with open(path, "rb") as file:
            start = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, file.fileno(), 0)
        self.regions.append((0, size, checked(start, "mmap")))

    def copy_file(self, path: str, size: int) -> float:
        """Seconds to copy a mapped file into fresh memory, in pieces of a fault's size."""
        fresh = checked(libc.mmap(None, size, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0), "mmap")
        with open(path, "rb") as file:
            source = checked(libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE, file.fileno(), 0), "mmap")
        began = time.perf_counter()
        for at in range(0, size, 1 << 16):
            libc.memcpy(fresh + at, source + at, 1 << 16)
        took = time.perf_counter() - began
        libc.munmap(fresh, size)
        libc.munmap(source, size)
        return took

    def until_resident(self, size: int, deadline: float = 10.0) -> float:
        """Seconds until the whole first region is there without being touched."""
        began = time.perf_counter()
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            place = (self.address(0) + size) // PAGE * 8 - 8
            while time.perf_counter() - began < deadline:
                if os.pread(file.fileno(), 8, place)[7] & 0x80:
                    return time.perf_counter() - began
                time.sleep(0.0005)  # the processor is for the page server
        raise OSError("the last page did not come")

    def digest(self, offset: int, size: int) -> str:
        return hashlib.sha256(self.read(offset, size)).hexdigest()

    def write(self, offset: int, text: str) -> None:
        libc.memcpy(self.address(offset), text.encode(), len(text))

    def remove(self, offset: int, size: int) -> None:
        checked(libc.madvise(self.address(offset), size, _MADV_DONTNEED), "madvise")

    def resident(self, offset: int, size: int) -> list[int]:
        """The pages that are there, counted from `offset`; asks without touching."""
        with open("/proc/self/pagemap", "rb") as file:
            file.seek(self.address(offset) // PAGE * 8)
            entries = array.array("Q", file.read(size // PAGE * 8))
        return [number for number, entry in enumerate(entries) if entry >> 63]


def main() -> None:
    firecracker = Firecracker()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"ok": getattr(firecracker, name)(**arguments)}
        except OSError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
