"""`firebrick vm`: the machines of the nodes that run on this home, whether of `firebrick run` or of `firebrick serve`."""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from firebrick.cli.errors import UsageError
from firebrick.cli.pty import converse, raw_terminal, terminal_size
from firebrick.cli.terminal import duration, size, tame
from firebrick.home import Home
from firebrick.node.socket import wire
from firebrick.node.socket.caller import ask, call, find_machine, list_machines

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Look into the machines of running nodes.")

Machine = Annotated[str, typer.Argument(help="The id of a machine, or the beginning of it.")]
_SHELLS: Final = ("sh", "-c", "if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi")


@app.callback()
def main() -> None:
    """Look into the machines of running nodes: those of `firebrick run` and `firebrick serve` with this home."""


@app.command("ls")
def list_(as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False) -> None:
    """List the machines that are alive."""
    machines = [machine for _, machine in asyncio.run(list_machines(Home.find().nodes))]
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(machines), indent=1))
    elif machines:
        _print_table(machines)
    else:
        typer.echo("no machine is running", err=True)


def _print_table(machines: list[wire.MachineInfo]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("id", "image", "for", "age", "vcpus", "memory", "resident", "cpu"):
        table.add_column(heading, justify="left" if heading in ("id", "image", "for") else "right", no_wrap=True)
    for machine in machines:
        words = (
            machine.id,
            machine.image,
            machine.purpose,
            duration(machine.age_s),
            str(machine.vcpus),
            f"{machine.memory_mib} MiB",
            size(machine.resident_bytes),
            duration(machine.cpu_s),
        )
        table.add_row(*(Text(tame(word, colour=False)) for word in words))
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(
    machine: Machine,
    argv: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The program and its arguments; no shell.")],
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="May be repeated.")] = None,
    cwd: Annotated[str | None, typer.Option("--cwd", "-w", metavar="DIR", help="Where it runs.")] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="A name, uid or uid:gid of the guest.")] = None,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
) -> None:
    """Run a command in a machine. Ends with its exit status, 128 + N where signal N ended it."""
    variables = dict(_pair(word) for word in env or [])
    argv = argv[1:] if argv[0] == "--" else argv
    raise typer.Exit(asyncio.run(_execute(machine, argv, variables, cwd=cwd, user=user, terminal=terminal)))


@app.command()
def shell(
    machine: Machine,
    user: Annotated[str | None, typer.Option("--user", "-u", help="A name, uid or uid:gid of the guest.")] = None,
) -> None:
    """An interactive shell in a machine."""
    if not sys.stdin.isatty():
        raise UsageError("a shell needs a terminal", hint="`firebrick vm exec` runs a command without one.")
    raise typer.Exit(asyncio.run(_execute(machine, _SHELLS, {}, cwd=None, user=user, terminal=True)))


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise UsageError(f"{word!r} is no NAME=VALUE")
    return name, value


async def _execute(
    machine: str, argv: Any, env: dict[str, str], *, cwd: str | None, user: str | None, terminal: bool
) -> int:
    socket, full = await find_machine(Home.find().nodes, machine)
    if terminal:
        env = {"TERM": os.environ.get("TERM", "xterm"), **env}
    request = wire.Execute(
        machine=full, argv=tuple(argv), env=env, cwd=cwd, user=user, size=terminal_size() if terminal else None
    )
    async with call(socket) as connection:
        with raw_terminal(terminal and sys.stdin.isatty()):
            return await converse(connection, request)


@app.command()
def console(machine: Machine) -> None:
    """What the machine wrote to its console: the last 64 KiB."""
    answer = _ask(machine, lambda full: wire.Console(machine=full))
    assert isinstance(answer, wire.Text)
    for line in answer.text.splitlines():
        typer.echo(tame(line, colour=False))


@app.command()
def stop(
    machine: Machine,
    grace: Annotated[float, typer.Option(min=0, help="Seconds it may take before it is ended.")] = 10.0,
) -> None:
    """Power a machine off. What runs on it is told to end."""
    _ask(machine, lambda full: wire.Stop(machine=full, grace_s=grace))


@app.command()
def kill(machine: Machine) -> None:
    """End a machine at once."""
    _ask(machine, lambda full: wire.Stop(machine=full, grace_s=None))


@app.command()
def fork(machine: Machine) -> None:
    """Copy a running machine, memory and disk. The copy lives until it is stopped or its node ends; its id is printed."""
    answer = _ask(machine, lambda full: wire.Fork(machine=full))
    assert isinstance(answer, wire.Forked)
    typer.echo(answer.machine)


@app.command()
def cp(
    source: Annotated[str, typer.Argument(help="A path here, or MACHINE:PATH.")],
    target: Annotated[str, typer.Argument(help="A path here, or MACHINE:PATH.")],
) -> None:
    """Copy a file or a directory into a machine or out of it. A directory's contents are merged into the target."""
    inside, outside = _guest_path(target), _guest_path(source)
    if (inside is None) == (outside is None):
        raise UsageError("one of the two must be MACHINE:PATH", hint="firebrick vm cp file 3f9a:/root/")
    into = inside is not None
    machine, guest = inside or outside or ("", "")
    host = Path(source if into else target).absolute()
    if into and not host.exists():
        raise UsageError(f"there is no {host}")
    if not into and host.is_dir() and not guest.endswith("/"):
        host /= posixpath.basename(guest)
    _ask(machine, lambda full: wire.Copy(machine=full, host=str(host), guest=guest, into=into))


def _guest_path(word: str) -> tuple[str, str] | None:
    """`ID:/path`; a colon after a slash belongs to the path of a file here."""
    machine, colon, path = word.partition(":")
    if not colon or "/" in machine:
        return None
    if not path.startswith("/"):
        raise UsageError(f"{path!r} is no absolute path of a guest")
    return machine, path


def _ask(machine: str, request: Any) -> wire.FromNode:
    async def asked() -> wire.FromNode:
        socket, full = await find_machine(Home.find().nodes, machine)
        return await ask(socket, request(full))

    return asyncio.run(asked())
