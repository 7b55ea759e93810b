"""Record docs/picture.svg: what a person sees who builds a real project with Firebrick.

    python tools/picture.py [--target docs/picture.svg] [-- COMMAND...]

Runs the command (default: the demo) on a pseudo-terminal, feeds what it writes to a terminal emulator, and draws the lines that were on the screen
and scrolled off it. Nothing is retouched: the picture holds the characters and colours the program wrote, or this fails.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte
import pyte.screens
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, ROWS, HISTORY = 104, 50, 2000
SHOWN_LINES = 60
ROOT = Path(__file__).resolve().parent.parent

# Without a font from elsewhere: a picture in a README must not load anything.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def record(command: list[str]) -> pyte.HistoryScreen:
    """Run `command` on a terminal of its own; the screen as it was in the end, with what scrolled off it."""
    screen = pyte.HistoryScreen(COLUMNS, ROWS, history=HISTORY, ratio=1)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        while output := _read(ours):
            stream.feed(output)
            sys.stdout.buffer.write(output)
            sys.stdout.flush()
    os.close(ours)
    if process.returncode:
        sys.exit(f"{command} ended with exit status {process.returncode}: no picture was made")
    return screen


def _read(terminal: int) -> bytes:
    """The next output; nothing at the end, which Linux tells as an error."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def _style(cell: pyte.screens.Char) -> Style:
    return Style(
        color=_colour(cell.fg),
        bgcolor=_colour(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if len(name) == 6 and all(digit in "0123456789abcdef" for digit in name):
        return f"#{name}"
    return {"brown": "yellow", "brightbrown": "bright_yellow"}.get(name, name.replace("bright", "bright_"))


def lines_of(screen: pyte.HistoryScreen) -> list[Text]:
    """Every line from the first to the last that is not empty."""
    rows = [*screen.history.top, *(screen.buffer[row] for row in range(screen.lines))]
    lines = []
    for row in rows:
        line = Text(no_wrap=True, end="")
        for column in range(screen.columns):
            line.append(row[column].data, _style(row[column]))
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def draw(lines: list[Text], title: str) -> str:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        for line in lines:
            console.print(line, overflow="crop", soft_wrap=False)
    return console.export_svg(title=title, code_format=SVG, unique_id="firebrick")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record a command's terminal output as an SVG.")
    parser.add_argument("--target", type=Path, default=ROOT / "docs" / "picture.svg")
    parser.add_argument("--title", default="make demo")
    parser.add_argument("command", nargs="*", default=["tools/demo"])
    asked = parser.parse_args()
    lines = lines_of(record(asked.command))
    if len(lines) > SHOWN_LINES:
        lines = lines[-SHOWN_LINES:]
    asked.target.parent.mkdir(parents=True, exist_ok=True)
    asked.target.write_text(draw(lines, asked.title))
    print(f"{asked.target}: {len(lines)} lines")


if __name__ == "__main__":
    main()
