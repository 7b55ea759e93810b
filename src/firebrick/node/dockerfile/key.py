"""What an image is kept by: a digest of all it is made of, and of who may have it.

What `RUN` does may depend on more than that - on what a network says that day. So an image is found where a cache would be: by runs of its own ref,
of the branch that ref would be merged into, and of the default branch. Nothing a pull request has built is ever used by a branch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from firebrick.dockerfile.work import Operation
from firebrick.node.order import RunOrder
from firebrick.node.scope import run_scopes
from firebrick.results.scope import Scopes

RECIPE: Final = 1
"""Part of every key: raise it when something else is made of the same Dockerfile."""


def content_key(base: str, platform: str, operations: Sequence[Operation], files: Mapping[int, str]) -> str:
    """`base` is the digest or key of what is begun from, `files` what each `COPY`, by its number, is of: a digest of files, or the key of a stage.

    The lines the operations are in make no difference."""
    total = hashlib.sha256(msgspec.json.encode(("firebrick build", RECIPE, base, platform)))
    for number, operation in enumerate(operations):
        plain = replace(operation, line=0)
        fields = (type(operation).__name__, plain, files.get(number, ""))
        total.update(msgspec.json.encode(fields, order="deterministic") + b"\n")
    return total.hexdigest()


def scoped(key: str, tenant: str, scope: str) -> str:
    return hashlib.sha256(msgspec.json.encode((key, tenant, scope))).hexdigest()


def image_scopes(order: RunOrder) -> Scopes:
    """Where a run finds images, and where it keeps them: one that may keep nothing for others keeps them for itself."""
    found = run_scopes(order)
    own = found.write or f"run {order.id}"
    return Scopes(read=tuple(dict.fromkeys((own, *found.read))), write=own)
