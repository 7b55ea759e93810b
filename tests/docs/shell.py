"""One bash, in which the commands of a page are typed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

_END = "the-command-has-ended"


class Shell:
    """Directories and variables stay from command to command."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, command: str) -> str:
        """What it wrote. Raises AssertionError with that where it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # The commands come on its standard input, so none of them may read that.
        self._process.stdin.write(f"{{\n{command}\n}} < /dev/null\nprintf '\\n{_END} %d\\n' $?\n")
        self._process.stdin.flush()
        output: list[str] = []
        for line in self._process.stdout:
            if line.startswith(_END):
                assert line.split()[1] == "0", f"$ {command}\n{''.join(output)}"
                return "".join(output).removesuffix("\n")
            output.append(line)
        raise AssertionError(f"the shell ended at: {command}\n{''.join(output)}")

    def start(self, command: str, log: Path) -> None:
        """In the background, with its output in a file, which is there when this returns."""
        log.touch()  # the shell goes on before its child has opened it
        self.run(f"{command} > '{log}' 2>&1 &")

    @property
    def directory(self) -> Path:
        return Path(f"/proc/{self._process.pid}/cwd").resolve()


@contextlib.contextmanager
def shell(directory: Path, variables: dict[str, str]) -> Iterator[Shell]:
    with subprocess.Popen(
        ["bash", "--norc"],
        cwd=directory,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        start_new_session=True,
    ) as process:
        try:
            yield Shell(process)
        finally:
            # What it started in the background is of its group, and ends with it, in its own way.
            os.killpg(process.pid, signal.SIGTERM)
