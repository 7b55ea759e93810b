"""What a guest wrote, made harmless for a terminal: colours stay, everything that moves, asks or renames goes."""

from __future__ import annotations

import re
from typing import Final

from firebrick.text import encodable

_SGR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_SEQUENCE: Final = re.compile(
    r"""
      \x1b \[ [0-?]* [ -/]* [@-~]            # CSI
    | \x1b [\]PX^_] .*? (?: \x07 | \x1b\\ | $)  # OSC, DCS, SOS, PM, APC up to their end
    | \x1b [ -/]* [0-~]?                     # the short ones
    | \x9b [0-?]* [ -/]* [@-~]               # CSI as one character
    """,
    re.VERBOSE,
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_IN_JSON: Final = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_NEWLINE: Final = "\N{SYMBOL FOR NEWLINE}"
_RESET: Final = "\x1b[0m"


def tame(text: str, *, colour: bool) -> str:
    """One line of output, and surely one: newlines become a visible mark. Carriage returns keep what a terminal would have shown last; tabs
    become spaces; with `colour` the colour sequences stay and are reset at the end."""
    if text.isprintable():  # most lines are, and there are many
        return text
    text = _last_overprint(text)
    coloured = False

    def keep_colour(match: re.Match[str]) -> str:
        nonlocal coloured
        if colour and _SGR.fullmatch(match[0]):
            coloured = True
            return match[0]
        return ""

    text = _SEQUENCE.sub(keep_colour, encodable(text).replace("\n", _NEWLINE))
    text = _CONTROL.sub("", text).expandtabs()
    return text + _RESET if coloured else text


def tame_block(text: str, *, indent: str = "") -> str:
    """Text that may have several lines, each of them tamed; all but the first begin with `indent`, which says that they go on."""
    return f"\n{indent}".join(tame(line, colour=False) for line in text.split("\n"))


def tame_json(text: str) -> str:
    """JSON with escapes for what JSON allows to stand as it is and a terminal obeys."""
    return _IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _last_overprint(text: str) -> str:
    r"""Progress bars print `10%\r20%\r...`: the last non-empty piece is what stays on the screen."""
    if "\r" not in text:
        return text
    return next((piece for piece in reversed(text.split("\r")) if piece), "")


def duration(seconds: float) -> str:
    """`0.31 s`, `12.3 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(count: int) -> str:
    """Bytes for people: `312 B`, `4.2 KiB`, `1.1 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{count} B"
