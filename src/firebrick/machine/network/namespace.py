"""Entering a network namespace for a moment: its settings, and its taps.

The namespace a thread is in is the thread's own. Each visit has a thread to itself, which ends with it: none ever goes back to a pool from elsewhere.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from firebrick.machine.errors import HostError
from firebrick.task import shielded

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_TUN: Final = "/dev/net/tun"
_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_TUNSETOWNER: Final = 0x400454CC
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000


async def visit(netns: Path, action: Callable[[], T]) -> T:
    """Call `action`, which may block, inside the namespace; a cancellation waits for it. Raises HostError where one cannot get in, and what it
    raises."""
    return await shielded(asyncio.to_thread(_visit, netns, action))


def set_settings(values: Mapping[str, str]) -> None:
    """Settings of the kernel (`ipv4/ip_forward`) of the namespace one is in. What this kernel has not got is left out: it cannot do that either."""
    for name, value in values.items():
        path = Path("/proc/sys/net", name)
        try:
            path.write_text(value)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError(
                f"cannot set {path} to {value}: {error.strerror}", hint="Network namespaces need root."
            ) from error


def make_tap(name: str, owner: int) -> None:
    """A tap that stays when nobody has it open, and that the user `owner` may open."""
    fd = open_tap(name)
    try:
        fcntl.ioctl(fd, _TUNSETOWNER, owner)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def open_tap(name: str) -> int:
    """A descriptor through which the packets of the tap go, with a header that says what of them is left to do. The caller closes it."""
    try:
        fd = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"cannot open {_TUN}: {error.strerror}", hint="Load the kernel module `tun`.") from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    except OSError as error:
        os.close(fd)
        raise HostError(
            f"cannot open the tap {name}: {error.strerror}", hint="A tap is open in one program at a time."
        ) from error
    return fd


def _visit(netns: Path, action: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def go() -> None:
        try:
            _enter(netns)
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            errors.append(error)

    thread = threading.Thread(target=go, name=f"in-{netns.name}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _enter(netns: Path) -> None:
    try:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"cannot enter the network namespace {netns.name}: {error.strerror}") from error
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raise HostError(
                f"cannot enter the network namespace {netns.name}: {reason}", hint="Network namespaces need root."
            )
    finally:
        os.close(fd)
