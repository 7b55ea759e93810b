"""What the protocols are made over."""

from __future__ import annotations

from dataclasses import dataclass

from firebrick.results.artifact import Artifacts
from firebrick.results.cache import Cache
from firebrick.results.upload import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`key` signs tokens and links."""

    key: bytes
    artifacts: Artifacts
    cache: Cache
    uploads: Uploads
