"""Names clients give to things, held to GitHub's rules: theirs are checked by the client as well, which we do not rely on."""

from __future__ import annotations

import re
from typing import Final

from firebrick.results.errors import InvalidError
from firebrick.text import is_encodable

_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f"*/:<>?\\|]')
_NAME_BYTES: Final = 256
_KEY_CHARACTERS: Final = 512
_MOST_KEYS: Final = 10
_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,512}\Z")
_MIME: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(; *[a-z]{1,20}=[A-Za-z0-9_.+-]{1,40})?\Z"
)


def check_artifact_name(name: str) -> str:
    """The name. Raises InvalidError."""
    if not name or name in (".", "..") or not is_encodable(name) or len(name.encode()) > _NAME_BYTES:
        raise InvalidError(f"the artifact name {name[:80]!r} is not valid", hint=f"It has 1 to {_NAME_BYTES} bytes.")
    if found := _FORBIDDEN.search(name):
        raise InvalidError(
            f"the artifact name {name!r} is not valid: it contains {found[0]!r}",
            hint='It may not hold " : < > | * ? / \\, nor control characters.',
        )
    return name


def check_cache_key(key: str) -> str:
    """The key. Raises InvalidError, in the client's own words."""
    if not key or not is_encodable(key):
        raise InvalidError("Key Validation Error: a key cannot be empty.")
    if len(key) > _KEY_CHARACTERS:
        raise InvalidError(f"Key Validation Error: {key[:80]}... cannot be larger than {_KEY_CHARACTERS} characters.")
    if "," in key:
        raise InvalidError(f"Key Validation Error: {key} cannot contain commas.")
    return key


def check_cache_keys(keys: list[str]) -> list[str]:
    """The key and the restore keys, in their order. Raises InvalidError."""
    if not 1 <= len(keys) <= _MOST_KEYS:
        raise InvalidError(f"Key Validation Error: Keys are limited to a maximum of {_MOST_KEYS}.")
    return [check_cache_key(key) for key in keys]


def check_version(version: str) -> str:
    """Of a cache entry: what made it and how, as a digest. Raises InvalidError."""
    if not _VERSION.match(version):
        raise InvalidError("the version of a cache entry must be letters, digits, `.`, `_`, `-`, at most 512 of them")
    return version


def check_mime(mime: str) -> str:
    """A media type that can be sent in a header. Raises InvalidError."""
    if not _MIME.match(mime):
        raise InvalidError(f"{mime[:80]!r} is no media type")
    return mime
