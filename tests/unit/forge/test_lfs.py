"""Pointers of Git LFS."""

from __future__ import annotations

import pytest

from firebrick.forge.lfs import Pointer, parse_pointer

HEAD = b"version https://git-lfs.github.com/spec/v1\n"
OID = b"4d" * 32


def test_pointers() -> None:
    expected = Pointer(OID.decode(), 12345)
    assert parse_pointer(HEAD + b"oid sha256:" + OID + b"\nsize 12345\n") == expected
    assert parse_pointer(HEAD + b"ext-0-foo sha256:1\noid sha256:" + OID + b"\nsize 12345\n") == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        HEAD,
        HEAD + b"oid sha256:" + OID[:-1] + b"\nsize 1\n",
        HEAD + b"oid sha256:" + OID + b"\nsize -1\n",
        HEAD + b"oid sha256:" + OID + b"\nsize " + b"9" * 19 + b"\n",
        HEAD + b"oid sha256:../" + OID[3:] + b"\nsize 1\n",
        HEAD + b"oid sha256:" + OID + b"\nsize 1\nmore\n",
        HEAD + b"ext-x\n" * 200 + b"oid sha256:" + OID + b"\nsize 1\n",
    ],
)
def test_what_is_no_pointer(content: bytes) -> None:
    assert parse_pointer(content) is None
