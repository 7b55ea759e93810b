"""`firebrick approve`: let a build of a server go on in an environment, or not."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from firebrick.cli.errors import UsageError
from firebrick.cli.remote import DEFAULT_SERVER, ServerOption, ask, say


def approve(
    build: Annotated[str, typer.Argument(help="A build of a server.")],
    environment: Annotated[
        str | None,
        typer.Argument(help="The environment it waits for. Without it those are shown that jobs have come to."),
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="End the jobs of the environment as failed.")] = False,
    comment: Annotated[str, typer.Option("--comment", "-m", help="A word on why, which is kept.")] = "",
    server: ServerOption = None,
) -> None:
    """Let a build go on that waits for the approval of an environment, or reject it.

    The first decision stands. The server is http://127.0.0.1:8080 where none is named.
    """
    path = f"/build/{quote(build, safe='')}/environments"
    address = server or DEFAULT_SERVER
    if environment is None and (reject or comment):
        raise UsageError(
            f"nothing was decided: which environment of {build}?",
            hint=f"Name it: `firebrick approve {build}` lists them.",
        )
    if environment is None:
        for held in ask(address, "GET", path):
            say(f"{held['environment']}: {held['message'] or held['state']}")
        return
    state = "rejected" if reject else "approved"
    answer = ask(address, "POST", path, {"environment": environment, "state": state, "comment": comment})
    say(f"{environment}: {state}; the build is {answer['status']}")
