"""What is wrong with a Dockerfile, or not supported of it."""

from __future__ import annotations


class DockerfileError(Exception):
    """`line` is where, from 1; 0 is the file as a whole. The message is a sentence; `hint` is one more, or empty."""

    def __init__(self, line: int, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.hint = hint
