"""The typed messages of the agent protocol (docs/reference/agent-protocol.md): one frozen record for each, named on the wire by `type`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Size = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""A count of bytes or things. A guest cannot name one that Linux could not hold."""

Port = Annotated[int, Meta(ge=0, le=65535)]


def _tag(name: str) -> str:
    """`IdentityDone` -> `identity_done`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class Message(Struct, frozen=True, tag_field="type", tag=_tag, kw_only=True):
    """What travels in a control frame. Keys a peer does not know are ignored, so that fields can be added."""


# --- stream 0, host to guest ---


class HelloRequest(Message, frozen=True, kw_only=True):
    pass


class SetIdentity(Message, frozen=True, kw_only=True, tag="identity"):
    entropy: bytes
    realtime_ns: int
    hostname: str
    machine_id: str


class Ping(Message, frozen=True, kw_only=True):
    token: int


class Quiesce(Message, frozen=True, kw_only=True):
    pass


class Continue(Message, frozen=True, kw_only=True):
    machine_id: str


class Resume(Message, frozen=True, kw_only=True):
    pass


class Poweroff(Message, frozen=True, kw_only=True):
    grace_ms: int


class Usage(Message, frozen=True, kw_only=True):
    pass


# --- stream 0, guest to host ---


class Hello(Message, frozen=True, kw_only=True):
    """What the agent says of itself. `version` and `minimum` bound the protocol versions it speaks; `boot_id` is the guest kernel's; `features`
    are what it can beyond the first release of its version."""

    version: int
    minimum: int
    agent: str
    kernel: str
    boot_id: str
    quiesced: bool
    features: tuple[str, ...] = ()


class IdentityDone(Message, frozen=True, kw_only=True):
    boot_id: str


class Pong(Message, frozen=True, kw_only=True):
    token: int


class Quiesced(Message, frozen=True, kw_only=True):
    pass


class Continued(Message, frozen=True, kw_only=True):
    pass


class Resumed(Message, frozen=True, kw_only=True):
    pass


class UsageReport(Message, frozen=True, kw_only=True):
    cpu_us: Size
    memory_bytes: Size
    memory_peak_bytes: Size
    processes: Size
    scratch_used_bytes: Size
    scratch_total_bytes: Size


class Fatal(Message, frozen=True, kw_only=True):
    message: str


# --- requests ---


class PtySize(Struct, frozen=True):
    """Of a terminal, in characters."""

    rows: int
    cols: int


class Put(Message, frozen=True, kw_only=True):
    """A file, whole: new or in place of the old content, in directories that are made where they are missing. Only before an exec."""

    path: bytes
    data: bytes
    mode: int | None = None


class Exec(Message, frozen=True, kw_only=True, omit_defaults=True):
    """`before` is done first, in this order; `listing` is a directory, and what it holds in the end is in `Exit.listing`. Both are for agents with the
    feature `prepare`."""

    argv: tuple[bytes, ...]
    env: dict[bytes, bytes]
    clear_env: bool
    cwd: bytes | None
    user: str | None
    stdin: bool
    pty: PtySize | None
    timeout_ms: int | None
    detach: bool
    merge: bool
    before: tuple[Put | Move, ...] = ()
    listing: bytes | None = None


class Write(Message, frozen=True, kw_only=True):
    path: bytes
    mode: int | None
    uid: int | None
    gid: int | None
    parents: bool
    append: bool


class Read(Message, frozen=True, kw_only=True):
    path: bytes
    offset: int
    limit: int | None


class Stat(Message, frozen=True, kw_only=True):
    path: bytes
    follow: bool


class List(Message, frozen=True, kw_only=True):
    path: bytes


class Mkdir(Message, frozen=True, kw_only=True):
    path: bytes
    mode: int
    parents: bool


class Remove(Message, frozen=True, kw_only=True):
    path: bytes
    recursive: bool
    missing_ok: bool


class Move(Message, frozen=True, kw_only=True):
    source: bytes
    target: bytes
    overwrite: bool


class Symlink(Message, frozen=True, kw_only=True):
    path: bytes
    target: bytes


class Chmod(Message, frozen=True, kw_only=True):
    path: bytes
    mode: int


class Upload(Message, frozen=True, kw_only=True):
    path: bytes
    uid: int | None
    gid: int | None


class Download(Message, frozen=True, kw_only=True):
    path: bytes
    exclude: tuple[bytes, ...]


class Connect(Message, frozen=True, kw_only=True):
    port: int | None = None
    host: str | None = None
    unix: bytes | None = None


class Listen(Message, frozen=True, kw_only=True):
    port: Port | None = None
    host: str | None = None
    unix: bytes | None = None


class Accept(Message, frozen=True, kw_only=True):
    """`listener` is the stream of a listen."""

    listener: int


class Seed(Message, frozen=True, kw_only=True):
    """`modules` are files in the guest, of kernel modules, in the order to load them."""

    seed: bytes
    modules: tuple[bytes, ...]


# --- host to guest, on the open stream of an exec ---


class Signal(Message, frozen=True, kw_only=True):
    number: int
    group: bool


class Resize(Message, frozen=True, kw_only=True):
    rows: int
    cols: int


# --- answers ---


class Started(Message, frozen=True, kw_only=True):
    pid: int


class Exit(Message, frozen=True, kw_only=True):
    """`listing` is None where the exec asked for none, and where it is more than comes along or could not be had."""

    code: Annotated[int, Meta(ge=0, le=255)] | None
    signal: Annotated[int, Meta(ge=1, le=255)] | None
    timed_out: bool
    oom: bool
    cpu_us: Size
    memory_peak_bytes: Size
    wall_us: Size
    listing: tuple[Entry, ...] | None = None


class Done(Message, frozen=True, kw_only=True):
    """Of any request but exec and stat; the counts are set where the request moves that kind of thing."""

    bytes: Size | None = None
    entries: Size | None = None


class Connected(Message, frozen=True, kw_only=True):
    pass


class Listening(Message, frozen=True, kw_only=True):
    port: Port | None


Kind = Literal["file", "directory", "symlink", "fifo", "socket", "character", "block"]


class Entry(Message, frozen=True, kw_only=True):
    """One thing in the guest's file system. `mode` is permission bits, `target` what a symbolic link says."""

    name: bytes
    kind: Kind
    size: Size
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    uid: Size
    gid: Size
    mtime_ns: int
    target: bytes | None
    nlink: Size


class Error(Message, frozen=True, kw_only=True):
    code: str
    message: str
    errno: int | None


FromGuestConnection = Hello | IdentityDone | Pong | Quiesced | Continued | Resumed | UsageReport | Fatal
"""What a guest says on stream 0."""

FromGuestStream = Started | Exit | Done | Connected | Listening | Entry | Error
"""What a guest says on the stream of a request."""

FromHostConnection = HelloRequest | SetIdentity | Ping | Quiesce | Continue | Resume | Poweroff | Usage
"""What a host says on stream 0."""

Request = (
    Exec
    | Write
    | Read
    | Stat
    | List
    | Mkdir
    | Remove
    | Move
    | Symlink
    | Chmod
    | Upload
    | Download
    | Connect
    | Listen
    | Accept
    | Seed
)
"""What opens a stream."""

FromHostStream = Request | Signal | Resize
"""What a host says on other streams."""

pack = msgspec.msgpack.Encoder().encode
