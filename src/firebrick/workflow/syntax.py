"""What a workflow file says, as frozen records: the meaning of the text, with nothing of it evaluated yet.

`firebrick.workflow.reader.read_workflow` makes them. Whatever may hold `${{ }}` is a `Template` (see `template`), evaluated later against a `Scope`;
what may not is a plain value. Names follow the file's keys; a trailing underscore avoids Python's keywords.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.problem import Position, Problem
from firebrick.workflow.template import Condition, Template, TemplateList, TemplateMap, TemplateTree, tree_templates


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDefaults:
    """`defaults.run` of a workflow or a job."""

    shell: Template | None = None
    working_directory: Template | None = None


class ControlKind(StrEnum):
    WAIT = "wait"
    WAIT_ALL = "wait-all"
    CANCEL = "cancel"


_CONTROL_NAMES = {ControlKind.WAIT: "Wait", ControlKind.WAIT_ALL: "Wait for all", ControlKind.CANCEL: "Cancel"}


@dataclass(frozen=True, slots=True)
class Control:
    """What a step does with steps that run in the background. `targets` are their places in the list of the job's steps, from 0; `WAIT_ALL`
    names none, and means all that have begun."""

    kind: ControlKind
    targets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: exactly one of `run`, `uses` and `control` is set. The steps of a `parallel` are steps of the job, in the `background`, and a
    step behind them waits for them.

    `id` is the author's, or empty: such a step is not in the `steps` context. `if_` always holds a condition: `success()` where the file has
    none. `name` is None where the file has none; `display_name` is what to show before anything is evaluated."""

    id: str
    position: Position
    name: Template | None = None
    if_: Condition
    run: Template | None = None
    uses: str | None = None
    with_: TemplateMap = field(default_factory=TemplateMap)
    shell: Template | None = None
    env: TemplateMap = field(default_factory=TemplateMap)
    working_directory: Template | None = None
    timeout_minutes: Template | None = None
    continue_on_error: Template | None = None
    background: bool = False
    control: Control | None = None

    @property
    def display_name(self) -> str:
        """The name as GitHub shows it: `name`, else `Run <first line of run>`, `Run <uses>` or `Wait`, `Wait for all`, `Cancel`."""
        if self.name is not None:
            return self.name.raw
        if self.control is not None:
            return _CONTROL_NAMES[self.control.kind]
        if self.run is not None:
            lines = self.run.raw.strip().splitlines()
            return f"Run {lines[0].strip()}" if lines else "Run"
        return f"Run {self.uses}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """`strategy` of a job. `matrix` is the tree as written (vectors, include, exclude, or one expression), or None. Where the file has one
    `expression` for all of it, the others are None until it is `resolved`."""

    matrix: TemplateTree | None = None
    fail_fast: Template | None = None
    max_parallel: Template | None = None
    expression: Template | None = None

    @property
    def templates(self) -> tuple[Template, ...]:
        """All that is written in it."""
        single = (self.expression, self.fail_fast, self.max_parallel)
        matrix = () if self.matrix is None else tree_templates(self.matrix)
        return (*(each for each in single if each is not None), *matrix)

    def resolved(self, scope: Scope) -> Strategy:
        """Without an expression for all of it. Raises EvaluationError, also where that gives no strategy."""
        if self.expression is None:
            return self
        value = self.expression.value(scope)
        if not isinstance(value, Mapping):
            raise EvaluationError("Expected a mapping")
        for name in value:
            if name not in {"matrix", "fail-fast", "max-parallel"}:
                raise EvaluationError(f"Unexpected value '{name}'")
        given = {name: Template("", self.expression.position, (each,)) for name, each in value.items()}
        return Strategy(
            matrix=given.get("matrix"), fail_fast=given.get("fail-fast"), max_parallel=given.get("max-parallel")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What a job's token may do: `scopes` by name, each `read`, `write` or `none`, and `others` for the scopes that are not named."""

    scopes: Mapping[str, str] = field(default_factory=dict)
    others: str = "none"

    def level(self, scope: str) -> str:
        return self.scopes.get(scope, self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """`concurrency`: of the runs or jobs of one `group` one runs at a time. With `queue` `single`, or none, one waits, the others that wait are
    cancelled; with `max` all wait. A group whose text is empty is none."""

    group: Template
    cancel_in_progress: Template | None = None
    queue: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """`environment` of a job. Without `deployment` the job makes one."""

    name: Template
    url: Template | None = None
    deployment: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a registry wants; `expression` gives both where the file has it so."""

    username: Template | None = None
    password: Template | None = None
    expression: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """`container` of a job, or one of its `services`. Where the file has one text, `image` is that; a text that is one expression may
    give, instead of a name, a mapping of all these keys. Only services have an entrypoint and a command."""

    image: Template
    env: TemplateMap = field(default_factory=TemplateMap)
    ports: TemplateList = field(default_factory=TemplateList)
    volumes: TemplateList = field(default_factory=TemplateList)
    options: Template | None = None
    credentials: Credentials | None = None
    entrypoint: Template | None = None
    command: Template | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """`services` of a job by name, or one expression that gives the mapping."""

    entries: Mapping[str, Container] = field(default_factory=dict)
    expression: Template | None = None

    def __bool__(self) -> bool:
        return bool(self.entries) or self.expression is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A job that is a reusable workflow: `uses` is `./.github/workflows/x.yml` or `owner/repository/.github/workflows/x.yml@ref`. `with_`
    keeps the types of its values. With `inherit_secrets` the workflow gets all the caller has."""

    uses: str
    position: Position
    with_: TemplateMap = field(default_factory=TemplateMap)
    secrets: TemplateMap = field(default_factory=TemplateMap)
    inherit_secrets: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job: it has steps, or it is a `call`, and then has neither steps nor a machine.

    `runs_on` is a template, or several (a list of labels). `if_` always holds a condition: `success()` where the file has none. What a job
    does not say about permissions and concurrency is None."""

    id: str
    position: Position
    name: Template | None = None
    needs: tuple[str, ...] = ()
    runs_on: tuple[Template, ...]
    runner_group: Template | None = None
    if_: Condition
    env: TemplateMap = field(default_factory=TemplateMap)
    defaults: RunDefaults = field(default_factory=RunDefaults)
    steps: tuple[Step, ...]
    outputs: TemplateMap = field(default_factory=TemplateMap)
    timeout_minutes: Template | None = None
    cancel_timeout_minutes: Template | None = None
    strategy: Strategy | None = None
    continue_on_error: Template | None = None
    permissions: Permissions | None = None
    concurrency: Concurrency | None = None
    environment: Environment | None = None
    container: Container | None = None
    services: Services = field(default_factory=Services)
    call: Call | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One workflow file. `name` is the `name` key, else `path`; `path` is the file's name as given, relative to the repository if the caller
    has it so. `on` maps each event to its configuration as plain values (None where there is none). `warnings` are keys that were read and have
    no effect yet, and conditions that are not what they seem."""

    name: str
    path: str
    on: Mapping[str, object]
    env: TemplateMap = field(default_factory=TemplateMap)
    defaults: RunDefaults = field(default_factory=RunDefaults)
    jobs: Mapping[str, Job]
    run_name: Template | None = None
    permissions: Permissions | None = None
    concurrency: Concurrency | None = None
    warnings: tuple[Problem, ...] = ()
