"""`hashFiles`: which files its patterns mean, what their digests make, and how an evaluation that is pure gets answers from a machine.

memo = HashMemo()
while True:
    try:
        return step.run.text(scope.with_functions(hashfiles=memo))
    except HashNeededError as needed:
        memo.answer(needed.patterns, await digest_of(needed.patterns))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from firebrick.workflow.expression.expression import EvaluationError
from firebrick.workflow.expression.value import Value, to_text


class HashNeededError(Exception):
    """An evaluation met a `hashFiles` of which the answer is not known yet."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__(f"the digest of {', '.join(patterns)} is not known yet")
        self.patterns = patterns


class HashMemo:
    """The function `hashFiles` of a scope: answers what it was told before, and asks for the rest by raising HashNeededError."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, ...], str] = {}

    def __call__(self, arguments: Sequence[Value]) -> Value:
        patterns = tuple(line.strip() for text in arguments for line in to_text(text).splitlines() if line.strip())
        patterns = tuple(pattern for pattern in patterns if not pattern.startswith("#"))
        if patterns and patterns[0] == "--follow-symbolic-links":
            patterns = patterns[1:]
        if not patterns:
            raise EvaluationError("hashFiles needs at least one pattern")
        if patterns not in self._answers:
            raise HashNeededError(patterns)
        return self._answers[patterns]

    def answer(self, patterns: tuple[str, ...], digest: str) -> None:
        """Say what the files of these patterns make: `combine` of their digests, or an empty text where there is no file."""
        self._answers[patterns] = digest


def combine(digests: Iterable[str]) -> str:
    """The digest of several files from the SHA-256 of each, in hexadecimal, in the order of `select`; of none, an empty text."""
    whole = hashlib.sha256()
    count = 0
    for digest in digests:
        whole.update(bytes.fromhex(digest))
        count += 1
    return whole.hexdigest() if count else ""
