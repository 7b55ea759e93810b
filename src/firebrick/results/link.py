"""Signed addresses: whoever has one may do one thing with one path until a time, and needs no token. Clients mask their query by its name, `sig`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import urlencode

from firebrick.results.errors import DeniedError


class Right(StrEnum):
    """What a link allows. `READ` is GET and HEAD, `WRITE` is PUT."""

    READ = "r"
    WRITE = "w"


def signed(key: bytes, path: str, right: Right, *, lifetime_s: float) -> str:
    """`path` with the query that makes it a link."""
    expires = str(int(time.time() + lifetime_s))
    return f"{path}?{urlencode({'se': expires, 'sp': right.value, 'sig': _signature(key, path, right, expires)})}"


def check_link(key: bytes, path: str, right: Right, query: Mapping[str, str]) -> None:
    """Raises DeniedError unless `query` makes `path` a link for this, and its time is not over."""
    expires, signature = query.get("se", ""), query.get("sig", "")
    wanted = _signature(key, path, right, expires)
    if not hmac.compare_digest(wanted.encode(), signature.encode(errors="replace")):
        raise DeniedError("the signature of this address is not valid for what was asked")
    if int(expires) < time.time():
        raise DeniedError("the time of this address is over", hint="Ask for a new one.")


def _signature(key: bytes, path: str, right: Right, expires: str) -> str:
    """Another key than that of tokens, made from it: what is signed for one is never good for the other."""
    own = hmac.digest(key, b"firebrick results link", hashlib.sha256)
    text = "\n".join((right.value, expires, path)).encode(errors="replace")
    return base64.urlsafe_b64encode(hmac.digest(own, text, hashlib.sha256)).decode().rstrip("=")
