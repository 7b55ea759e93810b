"""What a workflow file says, as frozen records: the meaning of the text, with nothing of it evaluated yet.

`firebrick.workflow.reader.read_workflow` makes them. Whatever may hold `${{ }}` is a `Template` (see `template`), evaluated later against a `Scope`;
what may not is a plain value. Names follow the file's keys; a trailing underscore avoids Python's keywords.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from firebrick.workflow.permission import Permissions
from firebrick.workflow.problem import Position, Problem
from firebrick.workflow.template import Condition, Template, TemplateMap, TemplateTree


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDefaults:
    """`defaults.run` of a workflow or a job."""

    shell: Template | None = None
    working_directory: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: exactly one of `run` and `uses` is set.

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

    @property
    def display_name(self) -> str:
        """The name as GitHub shows it: `name`, else `Run <first line of run>` or `Run <uses>`."""
        if self.name is not None:
            return self.name.raw
        if self.run is not None:
            lines = self.run.raw.strip().splitlines()
            return f"Run {lines[0].strip()}" if lines else "Run"
        return f"Run {self.uses}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """`strategy` of a job. `matrix` is the tree as written (vectors, include, exclude, or one expression), or None."""

    matrix: TemplateTree | None = None
    fail_fast: Template | None = None
    max_parallel: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """`concurrency` of a workflow or a job. `queue` is `single` (the latest waits) or `max` (many wait, in their order)."""

    group: Template
    cancel_in_progress: Template | None = None
    queue: str = "single"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """`environment` of a job: what it deploys to, and where that can be seen."""

    name: Template
    url: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a job that calls a workflow says: `uses` with its place, inputs, and secrets: by name, or all of the caller's where `inherits`."""

    uses: str
    position: Position
    with_: TemplateMap = field(default_factory=TemplateMap)
    secrets: TemplateMap = field(default_factory=TemplateMap)
    inherits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job: one with `steps`, or one with a `call`, which has neither steps nor `runs_on`. `runs_on` is a template, or several (a list of labels). `if_` always holds a condition: `success()` where the file has none."""

    id: str
    position: Position
    name: Template | None = None
    needs: tuple[str, ...] = ()
    runs_on: tuple[Template, ...]
    if_: Condition
    env: TemplateMap = field(default_factory=TemplateMap)
    defaults: RunDefaults = field(default_factory=RunDefaults)
    steps: tuple[Step, ...]
    outputs: TemplateMap = field(default_factory=TemplateMap)
    timeout_minutes: Template | None = None
    strategy: Strategy | None = None
    continue_on_error: Template | None = None
    cancel_timeout_minutes: Template | None = None
    concurrency: Concurrency | None = None
    permissions: Permissions | None = None
    environment: Environment | None = None
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
    concurrency: Concurrency | None = None
    permissions: Permissions | None = None
    warnings: tuple[Problem, ...] = ()
