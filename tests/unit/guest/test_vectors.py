"""The vectors both implementations are tested against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firebrick.guest import message, protocol
from firebrick.guest.errors import ProtocolError, TreeError
from firebrick.guest.protocol import Frame, FrameDecoder, Kind
from firebrick.guest.tree import EXTENT, LENGTH, Record, TreeLimits
from firebrick.guest.tree_parser import TreeParser

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "agent-protocol.json").read_text())
DECODERS = {
    ("host", True): protocol.Messages[message.Message](message.FromHostConnection, "on stream 0"),
    ("host", False): protocol.Messages[message.Message](message.FromHostStream, "on a stream"),
    ("guest", True): protocol.Messages[message.Message](message.FromGuestConnection, "on stream 0"),
    ("guest", False): protocol.Messages[message.Message](message.FromGuestStream, "on a stream"),
}


def named(section: str, *, wrong: bool) -> list[Any]:
    return [pytest.param(v, id=v["name"]) for v in VECTORS[section] if ("error" in v) == wrong]


def value(plain: Any) -> Any:
    """What a JSON value of the vectors stands for."""
    if isinstance(plain, list):
        return [value(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if "$bin" in plain:
        return bytes.fromhex(plain["$bin"])
    if "$map" in plain:
        return {value(k): value(v) for k, v in plain["$map"]}
    return {k: value(v) for k, v in plain.items()}


def decoded(frame: Frame, source: str) -> dict[str, Any]:
    found: dict[str, Any] = {"stream": frame.stream, "kind": Kind(frame.kind).name.lower(), "channel": frame.channel}
    if frame.kind == Kind.CONTROL:
        record = DECODERS[source, frame.stream == 0].decode(frame.payload)
        found["message"] = msgspec.msgpack.decode(message.pack(record))
    if frame.kind == Kind.DATA:
        found["payload"] = frame.payload
    if frame.kind == Kind.CREDIT:
        found["bytes"] = protocol.credit_amount(frame)
    return found


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Equal, where a field of ours that is nil may be missing in theirs."""
    if "message" in ours:
        ours = ours | {"message": {k: v for k, v in ours["message"].items() if v is not None or k in theirs["message"]}}
    return ours == theirs


@pytest.mark.parametrize("vector", named("frames", wrong=False))
def test_frames_are_what_the_vectors_say(vector: dict[str, Any]) -> None:
    frames = list(FrameDecoder().feed(bytes.fromhex(vector["hex"])))
    expected = [value(frame) for frame in vector["frames"]]
    assert len(frames) == len(expected)
    for ours, theirs in zip(frames, expected, strict=True):
        assert same(decoded(ours, vector["from"]), theirs)


@pytest.mark.parametrize("vector", named("frames", wrong=False))
def test_frames_are_made_as_the_vectors_have_them(vector: dict[str, Any]) -> None:
    again = b""
    for frame in FrameDecoder().feed(bytes.fromhex(vector["hex"])):
        match frame.kind:
            case Kind.DATA:
                again += protocol.data(frame.stream, frame.channel, frame.payload)
            case Kind.CREDIT:
                again += protocol.credit(frame.stream, frame.channel, protocol.credit_amount(frame))
            case Kind.EOF:
                again += protocol.eof(frame.stream, frame.channel)
            case Kind.RESET:
                again += protocol.reset(frame.stream)
            case _:
                return  # maps may have another order; the test above compares their content
    assert again.hex() == vector["hex"]


@pytest.mark.parametrize("vector", named("frames", wrong=True))
def test_wrong_frames_are_protocol_errors(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        for frame in FrameDecoder().feed(bytes.fromhex(vector["hex"])):
            decoded(frame, vector["from"])


class Parts:
    """A sink that writes the vectors' notation."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._size = 0

    def entry(self, record: Record, path: list[bytes]) -> None:
        self._size = record.size or 0
        fields = msgspec.msgpack.decode(message.pack(record))
        self.found.append({"record": fields | {"size": fields["size"] or 0}})

    def data(self, at: int, piece: memoryview) -> None:
        self.found.append({"offset": at, "data": bytes(piece)})

    def end_file(self) -> None:
        self.found.append({"offset": self._size, "data": b""})


@pytest.mark.parametrize("vector", named("trees", wrong=False))
def test_trees_are_what_the_vectors_say(vector: dict[str, Any]) -> None:
    sink = Parts()
    parser = TreeParser(sink, TreeLimits())
    parser.feed(bytes.fromhex(vector["hex"]))
    parser.finish()
    assert [*sink.found, {"end": True}] == [value(part) for part in vector["parts"]]


@pytest.mark.parametrize("vector", named("trees", wrong=True))
def test_wrong_trees_are_refused(vector: dict[str, Any], tmp_path: Path) -> None:
    from firebrick.guest.tree_target import TreeTarget

    with TreeTarget(tmp_path / "t", limits=TreeLimits()) as target, pytest.raises(TreeError):
        target.feed(bytes.fromhex(vector["hex"]))
        target.finish()


def test_the_layouts_have_the_sizes_of_the_document() -> None:
    assert (protocol.HEADER.size, LENGTH.size, EXTENT.size) == (12, 4, 12)
