"""The codec: any split, any garbage."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.guest import message, protocol
from firebrick.guest.entries import EntryDecoder
from firebrick.guest.errors import MessageTooLargeError, ProtocolError
from firebrick.guest.protocol import Frame, FrameDecoder, Kind

GUEST = protocol.Messages[message.Message](message.FromGuestConnection | message.FromGuestStream, "in a test")
STREAMS = st.integers(1, 0xFFFFFFFF)
CHANNELS = st.integers(0, 2)


def encoded(frame: Frame) -> bytes:
    return protocol.HEADER.pack(len(frame.payload), frame.stream, frame.kind, frame.channel, 0) + frame.payload


FRAMES = st.one_of(
    st.builds(Frame, STREAMS, st.just(Kind.DATA), CHANNELS, st.binary(max_size=5000)),
    st.builds(Frame, STREAMS, st.just(Kind.CREDIT), CHANNELS, st.binary(min_size=4, max_size=4)),
    st.builds(Frame, STREAMS, st.just(Kind.EOF), CHANNELS, st.just(b"")),
    st.builds(Frame, STREAMS, st.just(Kind.RESET), st.just(0), st.just(b"")),
    st.builds(
        Frame, st.integers(0, 0xFFFFFFFF), st.just(Kind.CONTROL), st.just(0), st.binary(min_size=1, max_size=500)
    ),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 1 << 20), max_size=20))
def test_frames_survive_any_split(frames: list[Frame], cuts: list[int]) -> None:
    decoder = FrameDecoder()
    found = []
    for piece in pieces(b"".join(encoded(f) for f in frames), cuts):
        found += decoder.feed(piece)
    assert found == frames
    assert not decoder.incomplete


@given(st.lists(FRAMES, min_size=1, max_size=3))
def test_frames_survive_single_bytes(frames: list[Frame]) -> None:
    decoder = FrameDecoder()
    found = []
    for byte in b"".join(encoded(f) for f in frames):
        found += decoder.feed(bytes([byte]))
    assert found == frames


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_garbage_is_a_protocol_error_or_nothing(garbage: list[bytes]) -> None:
    decoder = FrameDecoder()
    try:
        for piece in garbage:
            for frame in decoder.feed(piece):
                assert len(frame.payload) <= protocol.MAX_PAYLOAD
                if frame.kind == Kind.CONTROL:
                    GUEST.decode(frame.payload)
    except ProtocolError:
        pass


@given(st.binary(max_size=2000))
def test_garbage_messages_are_protocol_errors(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        GUEST.decode(b"\xc1" + garbage)
    with contextlib.suppress(ProtocolError):
        GUEST.decode(garbage)


@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x81\xa1a", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
def test_deep_and_enormous_messages_are_protocol_errors(opening: bytes) -> None:
    with pytest.raises(ProtocolError):
        GUEST.decode(b"\x82\xa4type\xa4pong\xa5extra" + opening * (60000 // len(opening)))


def test_a_header_is_refused_before_its_payload_is_waited_for() -> None:
    with pytest.raises(ProtocolError, match="262145"):
        list(FrameDecoder().feed(protocol.HEADER.pack(262145, 1, Kind.DATA, 1, 0)))


def test_the_frames_before_a_wrong_one_are_delivered() -> None:
    frames = FrameDecoder().feed(protocol.data(1, 1, b"last words") + b"\xff" * 12)
    assert next(frames).payload == b"last words"
    with pytest.raises(ProtocolError, match="the agent has hung up"):
        next(frames)


def test_a_trickled_frame_costs_no_more_than_its_size() -> None:
    """One byte at a time, a frame of the largest size: appended, not copied again and again."""
    frame = protocol.data(1, 1, bytes(protocol.MAX_PAYLOAD))
    decoder = FrameDecoder()
    found = [f for i in range(len(frame)) for f in decoder.feed(frame[i : i + 1])]
    assert [len(f.payload) for f in found] == [protocol.MAX_PAYLOAD]


def test_a_message_that_does_not_fit_is_refused_by_the_sender() -> None:
    with pytest.raises(MessageTooLargeError, match="symlink"):
        protocol.control(1, message.Symlink(path=b"/a", target=b"x" * 70000))


ENTRIES = st.builds(
    message.Entry,
    name=st.binary(min_size=1, max_size=255).filter(lambda n: n not in (b".", b"..") and not set(n) & {0, 47}),
    kind=st.sampled_from(["file", "directory", "symlink", "fifo", "socket", "character", "block"]),
    size=st.integers(0, (1 << 63) - 1),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 0xFFFFFFFF),
    gid=st.integers(0, 0xFFFFFFFF),
    mtime_ns=st.integers(-(1 << 63), (1 << 63) - 1),
    target=st.none() | st.binary(max_size=4095),
    nlink=st.integers(0, 0xFFFFFFFF),
)


@given(st.lists(ENTRIES, max_size=6), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_listings_survive_any_split(entries: list[message.Entry], cuts: list[int]) -> None:
    decoder = EntryDecoder()
    found = []
    for piece in pieces(b"".join(message.pack(e) for e in entries), cuts):
        found += decoder.feed(piece)
    decoder.finish()
    assert found == entries


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_garbage_listings_are_protocol_errors_or_incomplete(garbage: list[bytes]) -> None:
    decoder = EntryDecoder()
    try:
        for piece in garbage:
            decoder.feed(piece)
    except ProtocolError:
        pass


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_a_listing_with_a_name_that_is_none_is_refused(name: bytes) -> None:
    entry = message.Entry(name=name, kind="file", size=0, mode=0, uid=0, gid=0, mtime_ns=0, target=None, nlink=1)
    with pytest.raises(ProtocolError, match="name"):
        EntryDecoder().feed(message.pack(entry))


def test_an_endless_entry_is_refused() -> None:
    decoder = EntryDecoder()
    with pytest.raises(ProtocolError, match="more than"):
        for _ in range(10):
            decoder.feed(b"\x81\xa4name\xc6\x7f\xff\xff\xff" + bytes(2000) if not decoder._held else bytes(2000))
