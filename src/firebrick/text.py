"""Text of others, made fit to be written anywhere."""

from __future__ import annotations

import re
from typing import Final

_HALVES: Final = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """`text` as UTF-8 can hold it: each half of a surrogate pair, which escapes and file names may bring in, becomes U+FFFD."""
    return text if is_encodable(text) else _HALVES.sub("\ufffd", text)


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
