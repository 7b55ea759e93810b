"""Errors on the terminal: a sentence, a hint, an exit status; the traceback only where `FIREBRICK_DEBUG` asks for it."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

from firebrick.cli.terminal import tame_block
from firebrick.errors import FirebrickError

SUCCESS: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
_USAGE_ERRORS: Final = frozenset({"SettingsError", "WorkflowError"})
"""By name: who has no workflow, and no node, does not wait for theirs."""
_INDENT: Final = " " * len("error: ")


class UsageError(FirebrickError):
    """What was asked on the command line makes no sense here. Ends with status 2."""


def report(error: Exception) -> int:
    """Print the error to stderr and return the exit status it means."""
    for single in _singles(error):
        print_error(_message(single), hint=_hint(single))
        if os.environ.get("FIREBRICK_DEBUG") == "1":
            print(tame_block("".join(traceback.format_exception(single))), file=sys.stderr)  # noqa: T201
    return USAGE if all(_is_usage(single) for single in _singles(error)) else FAILURE


def print_error(message: str, *, hint: str = "") -> None:
    """`error: ...` and, below it, `hint: ...`, in colour on a terminal. Both may quote files and guests."""
    print(f"{_paint('error:', '1;31')} {tame_block(message, indent=_INDENT)}", file=sys.stderr)  # noqa: T201 - this is the command line
    if hint:
        print(f"{_paint('hint:', '1;36')}  {tame_block(hint, indent=_INDENT)}", file=sys.stderr)  # noqa: T201


def _singles(error: BaseException) -> list[BaseException]:
    """The errors themselves where a task group has wrapped them."""
    if isinstance(error, BaseExceptionGroup):
        return [single for inner in error.exceptions for single in _singles(inner)]
    return [error]


def _message(error: BaseException) -> str:
    if isinstance(error, FirebrickError | OSError):
        return str(error)
    return f"Firebrick has a mistake of its own: {type(error).__name__}: {error}"


def _hint(error: BaseException) -> str:
    if isinstance(error, FirebrickError):
        return error.hint
    if isinstance(error, OSError):
        return ""
    return "Set FIREBRICK_DEBUG=1 to see where, and report it."


def _is_usage(error: BaseException) -> bool:
    return isinstance(error, UsageError) or (
        isinstance(error, FirebrickError) and type(error).__name__ in _USAGE_ERRORS
    )


def _paint(text: str, code: str) -> str:
    plain = not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"
