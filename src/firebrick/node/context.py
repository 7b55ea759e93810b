"""Where a job is in its machine, and what an order says of itself to expressions and variables."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Final

from firebrick.node.order import RunOrder, Source
from firebrick.workflow.context import GuestPaths, RunFacts
from firebrick.workflow.expression.value import Value
from firebrick.workflow.syntax import Workflow

HOME: Final = "/root"
WORK: Final = "/home/runner/work"
TEMP: Final = f"{WORK}/_temp"
TOOL_CACHE: Final = "/opt/hostedtoolcache"
ACTIONS: Final = f"{WORK}/_actions"
EXTERNALS: Final = "/opt/externals/node24"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ARCHITECTURES: Final = {"x86_64": "X64", "aarch64": "ARM64"}


def guest_paths(order: RunOrder) -> GuestPaths:
    """`/home/runner/work/<repository>/<repository>` and its surroundings, as on a GitHub runner. Steps run as root: the machine is what keeps
    them in, and images need no user of ours."""
    name = order.source.repository.rpartition("/")[2]
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).lstrip(".-_")
    directory = safe or "workspace"
    return GuestPaths(
        workspace=f"{WORK}/{directory}/{directory}",
        temp=TEMP,
        tool_cache=TOOL_CACHE,
        event=f"{TEMP}/_github_workflow/event.json",
    )


def run_facts(order: RunOrder) -> RunFacts:
    return facts_of(order.origin or order.id, order.caller or order.workflow, order.source, attempt=order.number)


def facts_of(run: str, workflow: Workflow, source: Source, *, attempt: int = 1) -> RunFacts:
    """What a run of this workflow says of itself; `workflow` is the run's own, whatever it calls."""
    return RunFacts(
        run_id=run,
        repository=source.repository,
        ref=source.ref,
        sha=source.sha,
        workflow=workflow.name,
        workflow_path=workflow.path,
        event_name=source.event_name,
        event=source.event,
        run_attempt=attempt,
    )


def architecture() -> str:
    """Of this host and so of its guests, in the words of the `runner` context."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine().upper())


# Python and Perl order what they hash by a random number otherwise.
_UNSALTED: Final = {"PYTHONHASHSEED": "0", "PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0"}


def fixed_environment(order: RunOrder) -> dict[str, str]:
    """What tells programs that ask for it to be the same each time; empty in a run that need not be."""
    fixed = order.resources.fixed
    return {} if fixed is None else {"SOURCE_DATE_EPOCH": str(fixed.time_s), **_UNSALTED}


_TOKEN: Final = "github_token"  # noqa: S105 - its name


def with_token(github: Value, secrets: Mapping[str, str]) -> Value:
    """The context `github` where a job's own parts ask for it: with the token, which is what was given as the secret GITHUB_TOKEN. What is known
    before a job begins, and may be shown as a name, never has it."""
    token = next((value for name, value in secrets.items() if name.lower() == _TOKEN), "")
    if not token or not isinstance(github, Mapping):
        return github
    return {**github, "token": token, "secret_source": "Actions"}


_DEBUG: Final = ("ACTIONS_STEP_DEBUG", "ACTIONS_RUNNER_DEBUG")


def debugging(secrets: Mapping[str, str], variables: Value) -> bool:
    """Whether debug messages are shown and RUNNER_DEBUG is set: a secret or, where there is none, a variable of the repository says so."""
    known = variables if isinstance(variables, Mapping) else {}
    return any(str(secrets.get(name, known.get(name, ""))).lower() == "true" for name in _DEBUG)
