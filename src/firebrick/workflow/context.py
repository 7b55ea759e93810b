"""The contexts `github`, `runner` and `job`, and the environment every step begins with, from plain records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from firebrick.workflow.command.file import path_value
from firebrick.workflow.expression.value import ExactMap, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known of a run before it begins. `ref` is full (`refs/heads/main`); `repository` is `owner/name`; `workflow` is the name of the
    workflow and `workflow_path` its file in the repository."""

    run_id: str
    repository: str
    ref: str
    sha: str
    workflow: str
    workflow_path: str = ""
    event_name: str = "push"
    event: Mapping[str, object] = field(default_factory=dict)
    run_number: int = 1
    run_attempt: int = 1
    actor: str = "firebrick"
    actor_id: str = ""
    triggering_actor: str = ""
    repository_id: str = ""
    repository_owner_id: str = ""
    ref_protected: bool = False
    retention_days: int = 90
    server_url: str = "https://github.com"

    @property
    def ref_name(self) -> str:
        """`main` of `refs/heads/main`, `7/merge` of `refs/pull/7/merge`."""
        for prefix in ("refs/heads/", "refs/tags/", "refs/pull/"):
            if self.ref.startswith(prefix):
                return self.ref[len(prefix) :]
        return self.ref

    @property
    def ref_type(self) -> str:
        return "tag" if self.ref.startswith("refs/tags/") else "branch"

    @property
    def owner(self) -> str:
        return self.repository.split("/", 1)[0]

    def branch_of_pull_request(self, end: str) -> str:
        """The branch a pull request comes from (`head`) or goes to (`base`); empty for other events."""
        request = self.event.get("pull_request") if self.event_name.startswith("pull_request") else None
        side = request.get(end) if isinstance(request, Mapping) else None
        ref = side.get("ref") if isinstance(side, Mapping) else None
        return ref if isinstance(ref, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPaths:
    """Where things of a job are in its machine."""

    workspace: str = "/home/runner/work"
    temp: str = "/home/runner/temp"
    tool_cache: str = "/opt/hostedtoolcache"
    event: str = "/home/runner/temp/event.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPaths:
    """The files of one step's file commands, fresh for each."""

    env: str
    output: str
    path: str
    state: str
    step_summary: str


def github_context(
    facts: RunFacts, *, job: str, paths: GuestPaths, action: str = "", token: str = ""
) -> dict[str, Value]:
    """The context `github` of a step; before a job has its machine it is the same, read for what does not depend on it. `action` is the name of
    the step as the environment has it (see `action_name`)."""
    variables = _github_variables(facts, job=job, paths=paths, action=action)
    context: dict[str, Value] = {name.removeprefix("GITHUB_").lower(): value for name, value in variables.items()}
    return {
        **context,
        "event": _plain(facts.event),
        "ref_protected": facts.ref_protected,
        "repositoryUrl": f"git://{facts.server_url.split('://', 1)[-1]}/{facts.repository}.git",
        "secret_source": "Actions" if token else "None",
        "token": token,
    }


def _plain(event: Mapping[str, object]) -> Value:
    """An event came as JSON, which is what values are."""
    return event  # type: ignore[return-value]


def _github_variables(facts: RunFacts, *, job: str, paths: GuestPaths, action: str) -> dict[str, str]:
    server = facts.server_url.rstrip("/")
    public = server == "https://github.com"
    file = f"{facts.repository}/{facts.workflow_path}"
    return {
        "GITHUB_ACTION": action,
        "GITHUB_ACTION_REF": "",
        "GITHUB_ACTION_REPOSITORY": "",
        "GITHUB_ACTOR": facts.actor,
        "GITHUB_ACTOR_ID": facts.actor_id,
        "GITHUB_API_URL": "https://api.github.com" if public else f"{server}/api/v3",
        "GITHUB_BASE_REF": facts.branch_of_pull_request("base"),
        "GITHUB_EVENT_NAME": facts.event_name,
        "GITHUB_EVENT_PATH": paths.event,
        "GITHUB_GRAPHQL_URL": "https://api.github.com/graphql" if public else f"{server}/api/graphql",
        "GITHUB_HEAD_REF": facts.branch_of_pull_request("head"),
        "GITHUB_JOB": job,
        "GITHUB_REF": facts.ref,
        "GITHUB_REF_NAME": facts.ref_name,
        "GITHUB_REF_PROTECTED": "true" if facts.ref_protected else "false",
        "GITHUB_REF_TYPE": facts.ref_type,
        "GITHUB_REPOSITORY": facts.repository,
        "GITHUB_REPOSITORY_ID": facts.repository_id,
        "GITHUB_REPOSITORY_OWNER": facts.owner,
        "GITHUB_REPOSITORY_OWNER_ID": facts.repository_owner_id,
        "GITHUB_RETENTION_DAYS": str(facts.retention_days),
        "GITHUB_RUN_ATTEMPT": str(facts.run_attempt),
        "GITHUB_RUN_ID": facts.run_id,
        "GITHUB_RUN_NUMBER": str(facts.run_number),
        "GITHUB_SERVER_URL": server,
        "GITHUB_SHA": facts.sha,
        "GITHUB_TRIGGERING_ACTOR": facts.triggering_actor or facts.actor,
        "GITHUB_WORKFLOW": facts.workflow,
        "GITHUB_WORKFLOW_REF": f"{file}@{facts.ref}",
        "GITHUB_WORKFLOW_SHA": facts.sha,
        "GITHUB_WORKSPACE": paths.workspace,
    }


def runner_context(*, name: str, arch: str, paths: GuestPaths, debug: bool = False) -> dict[str, Value]:
    """The context `runner`. `arch` is X64, ARM64, ARM or X86."""
    context: dict[str, Value] = {
        "name": name,
        "os": "Linux",
        "arch": arch,
        "temp": paths.temp,
        "tool_cache": paths.tool_cache,
        "workspace": paths.workspace.rsplit("/", 1)[0],
        "environment": "self-hosted",
    }
    return {**context, "debug": "1"} if debug else context


def job_context(status: str) -> dict[str, Value]:
    return {"status": status}


def env_context(variables: Mapping[str, str]) -> Value:
    """The context `env`: names in it are found by exact spelling, as in the environment itself."""
    return ExactMap(variables)


def default_environment(
    facts: RunFacts, *, job: str, runner: Mapping[str, Value], paths: GuestPaths, files: CommandPaths, action: str = ""
) -> dict[str, str]:
    """The variables every `run` step has and cannot change: GITHUB_*, RUNNER_*, GITHUB_ACTIONS. `runner` is the context of that name."""
    variables = _github_variables(facts, job=job, paths=paths, action=action)
    commands = {
        "GITHUB_ENV": files.env,
        "GITHUB_OUTPUT": files.output,
        "GITHUB_PATH": files.path,
        "GITHUB_STATE": files.state,
        "GITHUB_STEP_SUMMARY": files.step_summary,
    }
    of_runner = {f"RUNNER_{name.upper()}": str(value) for name, value in runner.items()}
    return {"GITHUB_ACTIONS": "true", **variables, **commands, **of_runner, "AGENT_TOOLSDIRECTORY": paths.tool_cache}


def step_environment(
    layers: Iterable[Mapping[str, str]], defaults: Mapping[str, str], *, added_path: Iterable[str] = (), path: str = ""
) -> dict[str, str]:
    """The environment of a step. `layers` from weak to strong: of the workflow, of the job, what GITHUB_ENV added, of the step. `defaults`
    are stronger than all of them; only CI is theirs to change. `path` is the PATH of the machine, `added_path` what GITHUB_PATH added."""
    environment = {"CI": "true"}
    for layer in layers:
        environment.update(layer)
    environment.update(defaults)
    added = tuple(added_path)
    if added:
        environment["PATH"] = path_value(added, environment.get("PATH", path))
    return environment


def action_name(step_id: str, index: int, uses: str | None) -> str:
    """GITHUB_ACTION: the step's id, else `__run`, `__self` or `__owner_name`; `index` counts those of the same name before it."""
    if step_id:
        return step_id
    if uses is None:
        base = "__run"
    elif uses.startswith("./"):
        base = "__self"
    else:
        base = "__" + uses.split("@", 1)[0].replace("/", "_").lstrip("._")
    return base if index == 0 else f"{base}_{index + 1}"


def action_names(steps: Iterable[tuple[str, str | None]]) -> list[str]:
    """GITHUB_ACTION of every step of a list, each given as its id (empty without one) and what it uses."""
    seen: Counter[str] = Counter()
    names: list[str] = []
    for step_id, uses in steps:
        base = action_name(step_id, 0, uses)
        names.append(action_name(step_id, seen[base], uses))
        seen[base] += 1
    return names
