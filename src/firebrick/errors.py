"""What all errors of Firebrick have in common."""

from __future__ import annotations


class FirebrickError(Exception):
    """The class is the fact, the message a sentence for the person who reads it; `hint` is one more, which says what to do next, or empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
