"""What is wrong with a workflow file: every problem of a file at once, each at its line and column."""

from __future__ import annotations

from dataclasses import dataclass

from firebrick.errors import FirebrickError


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where something starts in its file; both count from 1."""

    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"(Line: {self.line}, Col: {self.column})"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `message` is in GitHub's words, `expected` says in ours what would have been right (may be empty),
    `source` is the line of the file it is on, for the excerpt."""

    file: str
    position: Position
    message: str
    expected: str = ""
    source: str = ""

    @property
    def line(self) -> int:
        return self.position.line

    @property
    def column(self) -> int:
        return self.position.column

    def __str__(self) -> str:
        """`<file> (Line: L, Col: C): <message>`, with what was expected behind it in brackets."""
        return f"{self.file} {self.position}: {self.message}" + (
            f" (expected: {self.expected})" if self.expected else ""
        )

    def excerpt(self) -> str:
        """The line of the file and a caret under the place, both indented by a gutter; empty without a source line."""
        if not self.source.strip():
            return ""
        gutter = f"{self.line:>5} | "
        start = min(max(self.column - 1, 0), len(self.source))
        shift = max(0, start - _EXCERPT_COLUMNS // 2)
        # Tabs stay tabs under the line, so that the caret stands where the terminal puts the character.
        lead = "".join("\t" if c == "\t" else " " for c in self.source[shift:start])
        visible = self.source[shift : shift + _EXCERPT_COLUMNS]
        return f"{gutter}{printable(visible)}\n{' ' * (len(gutter) - 2)}| {lead}^"

    def to_json(self) -> dict[str, object]:
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "expected": self.expected,
        }


_EXCERPT_COLUMNS = 120


def printable(text: str) -> str:
    """`text` with every control character (tab excepted) replaced: a workflow file cannot write to the reader's terminal."""
    return "".join(c if c == "\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class WorkflowError(FirebrickError):
    """A workflow that cannot run. `errors` holds every problem found, in the order of the file."""

    def __init__(self, errors: tuple[Problem, ...], *, hint: str = "") -> None:
        super().__init__("\n".join(str(problem) for problem in errors), hint=hint)
        self.errors = errors
