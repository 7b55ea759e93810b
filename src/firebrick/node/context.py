"""What a job can know about itself: the contexts of its expressions and the variables every step gets."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firebrick.node.order import RunOrder
from firebrick.workflow.expression import Value

HOME: Final = "/root"
WORK: Final = "/home/runner/work"
TEMP: Final = f"{WORK}/_temp"
TOOL_CACHE: Final = "/opt/hostedtoolcache"
EVENT_PATH: Final = f"{TEMP}/_github_workflow/event.json"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SERVER: Final = "https://github.com"
_ARCHITECTURES: Final = {"x86_64": "X64", "aarch64": "ARM64"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is in its machine. Steps run as root: the machine is what keeps them in, and images need no user of ours."""

    workspace: str
    parent: str

    @classmethod
    def of(cls, order: RunOrder) -> Place:
        name = order.source.repository.rpartition("/")[2] or "workspace"
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name).lstrip(".-") or "workspace"
        return cls(f"{WORK}/{safe}/{safe}", f"{WORK}/{safe}")


def github_context(order: RunOrder, place: Place, job: str) -> dict[str, Value]:
    """`github` of every expression of a job. Tokens are not in it: a machine gets no credential of the forge."""
    source, workflow = order.source, order.workflow
    name, kind = _short_ref(source.ref)
    event = dict(source.event)
    return {
        "action": "",
        "actor": _actor(event),
        "api_url": "https://api.github.com",
        "base_ref": _pull_request_ref(event, "base"),
        "event": _plain(event),
        "event_name": source.event_name,
        "event_path": EVENT_PATH,
        "graphql_url": "https://api.github.com/graphql",
        "head_ref": _pull_request_ref(event, "head"),
        "job": job,
        "ref": source.ref,
        "ref_name": name,
        "ref_protected": False,
        "ref_type": kind,
        "repository": source.repository,
        "repository_owner": source.repository.partition("/")[0],
        "retention_days": "0",
        "run_attempt": "1",
        "run_id": order.id,
        "run_number": "1",
        "server_url": _SERVER,
        "sha": source.sha,
        "token": "",
        "triggering_actor": _actor(event),
        "workflow": workflow.name,
        "workflow_ref": f"{source.repository}/{workflow.path}@{source.ref}",
        "workflow_sha": source.sha,
        "workspace": place.workspace,
    }


def runner_context(machine: str) -> dict[str, Value]:
    return {
        "arch": _ARCHITECTURES.get(platform.machine(), platform.machine().upper()),
        "debug": "",
        "environment": "self-hosted",
        "name": machine,
        "os": "Linux",
        "temp": TEMP,
        "tool_cache": TOOL_CACHE,
    }


_FROM_GITHUB: Final = [
    "actor",
    "api_url",
    "base_ref",
    "event_name",
    "event_path",
    "graphql_url",
    "head_ref",
    "job",
    "ref",
    "ref_name",
    "ref_type",
    "repository",
    "repository_owner",
    "retention_days",
    "run_attempt",
    "run_id",
    "run_number",
    "server_url",
    "sha",
    "triggering_actor",
    "workflow",
    "workflow_ref",
    "workflow_sha",
    "workspace",
]


def default_variables(github: Mapping[str, Value], runner: Mapping[str, Value], place: Place) -> dict[str, str]:
    """The variables of every step, before those of workflow, job and step."""
    variables = {f"GITHUB_{name.upper()}": str(github[name]) for name in _FROM_GITHUB}
    return variables | {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_REF_PROTECTED": "false",
        "HOME": HOME,
        "RUNNER_OS": "Linux",
        "RUNNER_ARCH": str(runner["arch"]),
        "RUNNER_NAME": str(runner["name"]),
        "RUNNER_ENVIRONMENT": "self-hosted",
        "RUNNER_TEMP": TEMP,
        "RUNNER_TOOL_CACHE": TOOL_CACHE,
        "RUNNER_WORKSPACE": place.parent,
        "AGENT_TOOLSDIRECTORY": TOOL_CACHE,
    }


def _short_ref(ref: str) -> tuple[str, str]:
    if ref.startswith("refs/tags/"):
        return ref.removeprefix("refs/tags/"), "tag"
    return ref.removeprefix("refs/heads/").removeprefix("refs/pull/"), "branch"


def _actor(event: Mapping[str, object]) -> str:
    sender = event.get("sender")
    return str(sender.get("login", "")) if isinstance(sender, Mapping) else ""


def _pull_request_ref(event: Mapping[str, object], side: str) -> str:
    request = event.get("pull_request")
    branch = request.get(side) if isinstance(request, Mapping) else None
    return str(branch.get("ref", "")) if isinstance(branch, Mapping) else ""


def _plain(value: object) -> Value:
    """The event as expressions see it: JSON values, numbers as doubles."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | bool) or value is None:
        return value
    return float(value) if isinstance(value, int | float) else str(value)
