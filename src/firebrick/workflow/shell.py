"""The shells of `run` steps, as data: how a script is invoked, and what its file is called and holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from firebrick.errors import FirebrickError


class ShellError(FirebrickError):
    """The `shell` of a step is none. `hint` says what would be."""


@dataclass(frozen=True, slots=True)
class Shell:
    """`template` holds `{0}` where the script's path goes; its first word is looked up in PATH. `fallback` is what to run where that program is not
    there. `prefix` and `suffix` go around the script."""

    template: tuple[str, ...]
    extension: str = ""
    fallback: Shell | None = None
    prefix: str = ""
    suffix: str = ""

    @property
    def program(self) -> str:
        return self.template[0]

    def argv(self, script_path: str) -> tuple[str, ...]:
        """The command line for a script at `script_path`."""
        return tuple(word.replace("{0}", script_path) for word in self.template)

    def script(self, text: str) -> bytes:
        """The bytes of the script's file: UTF-8, no byte order mark, the text's own line ends."""
        return f"{self.prefix}{text}{self.suffix}".encode()


_SH = Shell(("sh", "-e", "{0}"), ".sh")
DEFAULT = Shell(("bash", "-e", "{0}"), ".sh", fallback=_SH)
"""Where nothing names a shell: bash without pipefail, or sh where there is no bash."""

_PWSH_PREFIX = "$ErrorActionPreference = 'stop'\n"
_PWSH_SUFFIX = "\nif ((Test-Path -LiteralPath variable:\\LASTEXITCODE)) { exit $LASTEXITCODE }"
BUILT_IN: Mapping[str, Shell] = {
    "bash": Shell(("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "{0}"), ".sh"),
    "sh": _SH,
    "python": Shell(("python", "{0}"), ".py"),
    "pwsh": Shell(("pwsh", "-command", ". '{0}'"), ".ps1", prefix=_PWSH_PREFIX, suffix=_PWSH_SUFFIX),
}
_VALID = "Shell must be a valid built-in (bash, sh, cmd, powershell, pwsh) or a format string containing '{0}'"
_HINT = "bash, sh, python, pwsh, or a command with {0} for the script"
_OF_WINDOWS = ("cmd", "powershell")


def find_shell(name: str | None) -> Shell:
    """The shell a step names; None or empty is the default. Raises ShellError where it is neither built in nor has a `{0}`."""
    if not name:
        return DEFAULT
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name in _OF_WINDOWS:
        raise ShellError(f"Invalid shell option. '{name}' needs Windows", hint=_HINT)
    if "{0}" not in name:
        raise ShellError(f"Invalid shell option. {_VALID}", hint=_HINT)
    try:
        words = tuple(shlex.split(name))
    except ValueError as error:
        raise ShellError(f"Invalid shell option. {_VALID}", hint=f"a command whose quotes close ({error})") from error
    first = words[0].rsplit("/", 1)[-1]
    known = BUILT_IN.get(first)
    return Shell(words, known.extension if known else "")
