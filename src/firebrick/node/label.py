"""`runs-on` labels to images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from firebrick.node.errors import LabelError

PREFIX: Final = "firebrick-"
_GENERAL: Final = ("ubuntu-*", "debian-*", "linux", "self-hosted", "x64")


def image_of(labels: Sequence[str], *, images: Iterable[str], configured: Mapping[str, str], default: str) -> str:
    """The image a job with these labels runs in. A configured label comes first, then `firebrick-<image>` or the name of an image, then
    the labels that only ask for some Linux machine and get `default`. Every label must be known, and those that name an image must agree.

    Raises LabelError, which lists what there is."""
    known = set(images)
    named = {label: _named(label, known, configured) for label in labels}
    unknown = [label for label, image in named.items() if image is None and not _is_general(label)]
    if unknown or not labels:
        what = ", ".join(repr(label) for label in unknown) or "an empty list"
        raise LabelError(
            f"no machine for `runs-on`: {what} is not a label of this node", hint=_choice(known, configured)
        )
    chosen = sorted({image for image in named.values() if image is not None})
    if len(chosen) > 1:
        message = f"no machine for `runs-on`: the labels ask for several images, {' and '.join(chosen)}"
        raise LabelError(message, hint="Name one image.")
    return chosen[0] if chosen else default


def _named(label: str, known: set[str], configured: Mapping[str, str]) -> str | None:
    for pattern, image in configured.items():
        if fnmatchcase(label.lower(), pattern.lower()):
            return image
    name = label.removeprefix(PREFIX)
    return name if name in known else None


def _is_general(label: str) -> bool:
    return any(fnmatchcase(label.lower(), pattern) for pattern in _GENERAL)


def _choice(known: set[str], configured: Mapping[str, str]) -> str:
    labels = [*configured, *_GENERAL, *(f"{PREFIX}{name}" for name in sorted(known))]
    return f"Known labels: {', '.join(labels)}. More in `[node.labels]` of config.toml."
