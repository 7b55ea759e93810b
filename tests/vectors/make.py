"""Writes `agent-protocol.json`: what both ends of the agent protocol are tested against.

Built from docs/reference/agent-protocol.md with nothing of either implementation, so that the two can only agree by being right.
Bytes stand as {"$bin": hex}, a map with byte-string keys as {"$map": [[key, value], ...]}. Maps are compared by content, not by order:
an encoder may write its fields in any order. `python tests/vectors/make.py` writes the file again.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec

KINDS = {"control": 1, "data": 2, "credit": 3, "eof": 4, "reset": 5}
LIMIT = 262144


def frame(
    stream: int, kind: int, payload: bytes = b"", channel: int = 0, reserved: int = 0, length: int | None = None
) -> bytes:
    return struct.pack("<IIBBH", len(payload) if length is None else length, stream, kind, channel, reserved) + payload


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, bytes):
        return {"$bin": value.hex()}
    if isinstance(value, dict):
        if value and all(isinstance(key, bytes) for key in value):
            return {"$map": [[plain(key), plain(item)] for key, item in value.items()]}
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def control(name: str, source: str, stream: int, message: dict[str, Any]) -> dict[str, Any]:
    data = frame(stream, 1, msgspec.msgpack.encode(message))
    decoded = {"stream": stream, "kind": "control", "channel": 0, "message": plain(message)}
    return {"name": name, "from": source, "hex": data.hex(), "frames": [decoded]}


def raw(name: str, source: str, *frames: tuple[int, str, int, bytes]) -> dict[str, Any]:
    data = b"".join(frame(stream, KINDS[kind], payload, channel) for stream, kind, channel, payload in frames)
    decoded = []
    for stream, kind, channel, payload in frames:
        entry: dict[str, Any] = {"stream": stream, "kind": kind, "channel": channel}
        if kind == "data":
            entry["payload"] = plain(payload)
        if kind == "credit":
            entry["bytes"] = struct.unpack("<I", payload)[0]
        decoded.append(entry)
    return {"name": name, "from": source, "hex": data.hex(), "frames": decoded}


def bad(name: str, source: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "from": source, "hex": data.hex(), "error": True}


EXEC = {
    "type": "exec", "argv": [b"/bin/echo", b"caf\xc3\xa9", b"\xff\xfe"], "env": {b"A": b"1", b"B\xff": b""}, "clear_env": False, "cwd": b"/tmp",
    "user": "nobody", "stdin": True, "pty": None, "timeout_ms": 1500, "detach": False, "merge": True,
}  # fmt: skip
EXEC_PTY = EXEC | {
    "argv": [b"sh"],
    "env": {},
    "cwd": None,
    "user": None,
    "pty": {"rows": 24, "cols": 80},
    "timeout_ms": None,
    "detach": True,
}
EXEC_PREPARED = EXEC | {
    "before": [
        {"type": "move", "source": b"/old", "target": b"/new\xff", "overwrite": False},
        {"type": "put", "path": b"/tmp/script.sh", "data": b"true\n\x00", "mode": 0o755},
        {"type": "put", "path": b"/tmp/empty", "data": b"", "mode": None},
    ],
    "listing": b"/new\xff",
}
ENTRY = {
    "type": "entry", "name": b"a\xffb", "kind": "symlink", "size": 3, "mode": 0o777, "uid": 0, "gid": 65534, "mtime_ns": 1_700_000_000_123_456_789,
    "target": b"../x", "nlink": 1,
}  # fmt: skip
EXIT = {
    "type": "exit",
    "code": 3,
    "signal": None,
    "timed_out": False,
    "oom": False,
    "cpu_us": 1234,
    "memory_peak_bytes": 1 << 33,
    "wall_us": 99,
}
EXIT_LISTING = EXIT | {
    "listing": [ENTRY, ENTRY | {"name": b"b", "kind": "file", "target": None}],
}
ERROR = {"type": "error", "code": "not_found", "message": "cannot stat /nothing: no such file or directory", "errno": 2}


def messages() -> list[dict[str, Any]]:
    return [control(name, "host", stream, message) for name, stream, message in of_host()] + [
        control(name, "guest", stream, message) for name, stream, message in of_guest()
    ]


def of_host() -> list[tuple[str, int, dict[str, Any]]]:
    return [
        ("hello_request", 0, {"type": "hello_request"}),
        (
            "identity",
            0,
            {
                "type": "identity",
                "entropy": bytes(range(32)),
                "realtime_ns": 1_795_000_000_000_000_001,
                "hostname": "fork-7",
                "machine_id": "0123456789abcdef" * 2,
            },
        ),
        ("ping", 0, {"type": "ping", "token": (1 << 63) - 1}),
        ("quiesce", 0, {"type": "quiesce"}),
        ("continue", 0, {"type": "continue", "machine_id": "0123456789abcdef0123456789abcdef"}),
        ("resume", 0, {"type": "resume"}),
        ("poweroff", 0, {"type": "poweroff", "grace_ms": 5000}),
        ("usage", 0, {"type": "usage"}),
        ("exec", 1, EXEC),
        ("exec_pty", 0xFFFFFFFF, EXEC_PTY),
        ("exec_prepared", 2, EXEC_PREPARED),
        ("signal", 1, {"type": "signal", "number": 15, "group": True}),
        ("resize", 1, {"type": "resize", "rows": 50, "cols": 132}),
        (
            "write",
            2,
            {
                "type": "write",
                "path": b"/tmp/x",
                "mode": 0o644,
                "uid": None,
                "gid": 1000,
                "parents": True,
                "append": False,
            },
        ),
        ("read", 3, {"type": "read", "path": b"/etc/\xff", "offset": 1 << 40, "limit": None}),
        ("stat", 4, {"type": "stat", "path": b"/", "follow": False}),
        ("list", 5, {"type": "list", "path": b"/dev"}),
        ("mkdir", 6, {"type": "mkdir", "path": b"/a/b", "mode": 0o755, "parents": True}),
        ("remove", 7, {"type": "remove", "path": b"/a", "recursive": True, "missing_ok": False}),
        ("move", 8, {"type": "move", "source": b"/a", "target": b"/b", "overwrite": False}),
        ("symlink", 9, {"type": "symlink", "path": b"/l", "target": b"../t"}),
        ("chmod", 10, {"type": "chmod", "path": b"/a", "mode": 0o4755}),
        ("upload", 11, {"type": "upload", "path": b"/src", "uid": 1000, "gid": 1000}),
        ("download", 12, {"type": "download", "path": b"/src", "exclude": [b".git", b"*.o"]}),
        ("connect_port", 13, {"type": "connect", "port": 8080, "host": "127.0.0.1", "unix": None}),
        ("connect_unix", 14, {"type": "connect", "port": None, "host": "127.0.0.1", "unix": b"/run/x.sock"}),
        ("listen_port", 15, {"type": "listen", "port": 0, "host": "127.1.0.1", "unix": None}),
        ("listen_unix", 16, {"type": "listen", "port": None, "host": None, "unix": b"/run/y.sock"}),
        ("accept", 17, {"type": "accept", "listener": 15}),
        ("seed", 19, {"type": "seed", "seed": bytes(range(32)), "modules": [b"/run/fuse.ko"]}),
    ]


def of_guest() -> list[tuple[str, int, dict[str, Any]]]:
    return [
        ("hello", 0, {"type": "hello", "version": 1, "minimum": 1, "agent": "0.1.0", "kernel": "6.1.0", "boot_id": "0f0e0d0c-0b0a-0908-0706-050403020100", "quiesced": True, "features": ["listen", "prepare", "of another release"]}),
        ("identity_done", 0, {"type": "identity_done", "boot_id": "0f0e0d0c-0b0a-0908-0706-050403020100"}),
        ("pong", 0, {"type": "pong", "token": 0}),
        ("quiesced", 0, {"type": "quiesced"}),
        ("continued", 0, {"type": "continued"}),
        ("resumed", 0, {"type": "resumed"}),
        ("usage_report", 0, {"type": "usage_report", "cpu_us": 1, "memory_bytes": 2, "memory_peak_bytes": 3, "processes": 4, "scratch_used_bytes": 5, "scratch_total_bytes": 1 << 40}),
        ("fatal", 0, {"type": "fatal", "message": "cannot mount the root disk: no such device"}),
        ("started", 1, {"type": "started", "pid": 4711}),
        ("exit", 1, EXIT),
        ("exit_signal", 1, EXIT | {"code": None, "signal": 9, "timed_out": True, "oom": True}),
        ("exit_listing", 1, EXIT_LISTING),
        ("exit_empty_listing", 1, EXIT | {"listing": []}),
        ("done", 2, {"type": "done"}),
        ("done_bytes", 2, {"type": "done", "bytes": 5}),
        ("done_tree", 11, {"type": "done", "entries": 7, "bytes": 1 << 34}),
        ("entry", 4, ENTRY),
        ("entry_file", 4, ENTRY | {"kind": "file", "target": None, "size": 1 << 35, "mode": 0o644}),
        ("connected", 13, {"type": "connected"}),
        ("connected_accept", 17, {"type": "connected"}),
        ("listening_port", 15, {"type": "listening", "port": 40000}),
        ("listening_unix", 16, {"type": "listening", "port": None}),
        ("error", 4, ERROR),
        ("error_unprepared", 2, ERROR | {"code": "unprepared"}),
        ("error_no_errno", 4, ERROR | {"code": "no_identity", "errno": None}),
    ]  # fmt: skip


def frames() -> list[dict[str, Any]]:
    grant = struct.pack("<I", 65536)
    return [
        raw("data_in", "host", (1, "data", 0, b"hello\n")),
        raw("data_empty", "host", (1, "data", 0, b"")),
        raw("data_error_output", "guest", (1, "data", 2, bytes(range(256)))),
        raw("eof_in", "host", (1, "eof", 0, b"")),
        raw("credit", "host", (1, "credit", 1, grant)),
        raw("reset", "host", (1, "reset", 0, b"")),
        raw(
            "several", "guest", (1, "data", 1, b"out"), (2, "credit", 0, grant), (1, "eof", 1, b""), (1, "eof", 2, b"")
        ),
        bad("kind_zero", "host", frame(1, 0)),
        bad("kind_six", "host", frame(1, 6)),
        bad("reserved_set", "host", frame(1, 2, b"x", reserved=1)),
        bad("too_long", "host", frame(1, 2, length=LIMIT + 1)),
        bad("control_too_long", "host", frame(1, 1, length=65537)),
        bad("channel_three", "guest", frame(1, 2, b"x", channel=3)),
        bad("credit_short", "host", frame(1, 3, b"\1\0\0")),
        bad("eof_with_payload", "host", frame(1, 4, b"x")),
        bad("reset_with_payload", "host", frame(1, 5, b"x")),
        bad("data_on_connection", "host", frame(0, 2, b"x")),
        bad("control_not_a_map", "host", frame(0, 1, msgspec.msgpack.encode([1, 2]))),
        bad("control_no_type", "host", frame(0, 1, msgspec.msgpack.encode({"token": 1}))),
        bad("control_unknown_type", "host", frame(0, 1, msgspec.msgpack.encode({"type": "nonsense"}))),
        bad("control_cut_short", "host", frame(0, 1, msgspec.msgpack.encode({"type": "ping", "token": 300})[:-1])),
        bad("control_not_messagepack", "host", frame(0, 1, b"\xc1\xc1\xc1")),
        bad("listen_port_too_high", "host", frame(1, 1, msgspec.msgpack.encode({"type": "listen", "port": 65536}))),
        bad(
            "listening_port_too_high",
            "guest",
            frame(1, 1, msgspec.msgpack.encode({"type": "listening", "port": 65536})),
        ),
        bad("accept_of_nothing", "host", frame(1, 1, msgspec.msgpack.encode({"type": "accept"}))),
        bad(
            "exec_with_a_write_before",
            "host",
            frame(1, 1, msgspec.msgpack.encode(EXEC | {"before": [{"type": "write"}]})),
        ),
        bad("exit_with_no_listing", "guest", frame(1, 1, msgspec.msgpack.encode(EXIT | {"listing": "/"}))),
        bad("control_wrong_field", "host", frame(0, 1, msgspec.msgpack.encode({"type": "ping", "token": "x"}))),
    ]


def record(**fields: Any) -> tuple[bytes, dict[str, Any]]:
    packed = msgspec.msgpack.encode(fields)
    return struct.pack("<I", len(packed)) + packed, {"record": plain(fields)}


def extent(offset: int, data: bytes) -> tuple[bytes, dict[str, Any]]:
    return struct.pack("<QI", offset, len(data)) + data, {"offset": offset, "data": plain(data)}


def trees() -> list[dict[str, Any]]:
    common = {"mtime_ns": 1_700_000_000_000_000_001, "uid": 0, "gid": 0}
    root = record(path=b"", kind="directory", mode=0o755, size=0, target=None, **common)
    sparse = record(path=b"s\xffparse", kind="file", mode=0o600, size=1 << 20, target=None, **common)
    end = (struct.pack("<I", 0), {"end": True})
    good = [
        root,
        record(path=b"d", kind="directory", mode=0o700, size=0, target=None, **common),
        record(path=b"d/link", kind="symlink", mode=0o777, size=0, target=b"../nowhere", **common),
        sparse, extent(0, b"head"), extent(524288, b"middle"), extent(1 << 20, b""),
        record(path=b"d/hard", kind="hardlink", mode=0o600, size=0, target=b"s\xffparse", **common),
        record(path=b"empty", kind="file", mode=0o644, size=0, target=None, **common), extent(0, b""),
        end,
    ]  # fmt: skip
    result = [{"name": "tree", "hex": b"".join(part[0] for part in good).hex(), "parts": [part[1] for part in good]}]
    result.append({"name": "nothing", "hex": end[0].hex(), "parts": [end[1]]})
    for name, path in [
        ("dotdot", b"../x"),
        ("inner_dotdot", b"a/../x"),
        ("absolute", b"/x"),
        ("empty_component", b"a//x"),
        ("dot", b"./x"),
        ("zero_byte", b"a\0b"),
    ]:
        wrong = record(path=path, kind="file", mode=0o644, size=0, target=None, **common)
        result.append(
            {"name": f"refused_{name}", "hex": (root[0] + wrong[0] + extent(0, b"")[0] + end[0]).hex(), "error": True}
        )
    escape = record(path=b"h", kind="hardlink", mode=0o644, size=0, target=b"../../etc/passwd", **common)
    result.append({"name": "refused_hardlink", "hex": (root[0] + escape[0] + end[0]).hex(), "error": True})
    through = [
        record(path=b"l", kind="symlink", mode=0o777, size=0, target=b"/tmp", **common),
        record(path=b"l/x", kind="file", mode=0o644, size=0, target=None, **common),
    ]
    result.append(
        {
            "name": "refused_through_symlink",
            "hex": (root[0] + through[0][0] + through[1][0] + extent(0, b"")[0] + end[0]).hex(),
            "error": True,
        }
    )
    result.append(
        {
            "name": "refused_extent_too_long",
            "hex": (root[0] + sparse[0] + struct.pack("<QI", 0, 1048577)).hex(),
            "error": True,
        }
    )
    result.append(
        {
            "name": "refused_extent_past_end",
            "hex": (root[0] + sparse[0] + extent(1 << 20, b"x")[0]).hex(),
            "error": True,
        }
    )
    result.append({"name": "refused_record_too_long", "hex": struct.pack("<I", 65537).hex(), "error": True})
    result.append({"name": "cut_short", "hex": (root[0] + sparse[0] + extent(0, b"head")[0][:-1]).hex(), "error": True})
    return result


def main() -> None:
    vectors = {"frames": frames() + messages(), "trees": trees()}
    Path(__file__).with_name("agent-protocol.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
