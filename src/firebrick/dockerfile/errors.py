"""What is wrong with a Dockerfile, or not supported of it."""

from __future__ import annotations

from firebrick.errors import FirebrickError


class DockerfileError(FirebrickError):
    """`line` is where, from 1; 0 is the file as a whole."""

    def __init__(self, line: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.line = line
