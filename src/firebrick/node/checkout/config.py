"""git's configuration files, written: what hostile names and addresses cannot get out of."""

from __future__ import annotations

from collections.abc import Iterable

from firebrick.node.errors import CheckoutError

Entry = tuple[str, str, str, str]
"""Section, subsection (or empty), key, value."""


def config_text(entries: Iterable[Entry]) -> str:
    """Entries of one section that follow one another stand below one heading. Raises CheckoutError for what no line can hold."""
    text, last = "", None
    for section, subsection, key, value in entries:
        if any(ord(character) < 32 or ord(character) == 127 for character in subsection + value):
            raise CheckoutError(f"cannot write {section}.{key} of the repository: it has control characters in it")
        if last != (section, subsection):
            text += f'[{section} "{_escaped(subsection)}"]\n' if subsection else f"[{section}]\n"
            last = (section, subsection)
        plain = all(character.isascii() and (character.isalnum() or character in "/.:_+*@-") for character in value)
        text += f"\t{key} = {value if plain and value else _quoted(value)}\n"
    return text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
