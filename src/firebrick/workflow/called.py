"""Reusable workflows: all that a workflow calls, directly or not, read and checked before anything runs.

`load_calls` is a generator, so that it needs no way of its own to files: it yields the `Target` it wants and is sent the file, or None where there
is none. `load_with` drives it with a function; a node drives it with what takes time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Protocol

from firebrick.workflow.event.inputs import call_mistakes, read_inputs, type_mistake
from firebrick.workflow.expression.value import fold
from firebrick.workflow.permission import describe_excess, effective, granted
from firebrick.workflow.problem import Position, Problem, WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.reference import OWN, Target, parse_target
from firebrick.workflow.syntax import Call, Job, Permissions, Workflow
from firebrick.workflow.template import TemplateMap

MAX_LEVELS = 10
MAX_CALLED = 50
_MAX_VISITS = 2_000


@dataclass(frozen=True, slots=True)
class Calls:
    """Every workflow a run may call, by what names it."""

    found: Mapping[Target, Workflow] = field(default_factory=dict)

    def callee(self, within: Target, call: Call) -> tuple[Target, Workflow]:
        """What a call in a file of `within` calls."""
        target = parse_target(call.uses, within)
        return target, self.found[target]

    def knows(self, within: Target, call: Call) -> bool:
        return parse_target(call.uses, within) in self.found


class FindWorkflow(Protocol):
    """Where called workflows come from: the file `target` names, or None where there is none."""

    def __call__(self, target: Target) -> bytes | None: ...


Loading = Generator[Target, bytes | None, Calls]


def load_with(workflow: Workflow, find: FindWorkflow, *, local_only: bool = False) -> Calls:
    """`load_calls`, with the files from a function. Raises WorkflowError."""
    loading = load_calls(workflow, local_only=local_only)
    try:
        target = next(loading)
        while True:
            target = loading.send(find(target))
    except StopIteration as end:
        calls: Calls = end.value
        return calls


def load_calls(workflow: Workflow, *, local_only: bool = False) -> Loading:
    """Everything `workflow` calls. Raises WorkflowError with all that is wrong: files that are not there or cannot be read, calls that do not fit
    what they call, cycles, more than 10 levels with the first or 50 workflows, and permissions a caller does not have. With `local_only` workflows
    of other repositories are not asked for, and not in the result."""
    loader = _Loader(workflow, local_only=local_only)
    yield from loader.load()
    loader.check()
    if loader.problems:
        raise WorkflowError(tuple(dict.fromkeys(loader.problems)), hint="Correct the calls, or the called workflows.")
    return Calls(loader.found)


class _Loader:
    def __init__(self, root: Workflow, *, local_only: bool) -> None:
        self._root = root
        self._local_only = local_only
        self._edges: dict[Target, dict[Target, Job]] = {OWN: {}}
        self.found: dict[Target, Workflow] = {}
        self.problems: list[Problem] = []

    def load(self) -> Generator[Target, bytes | None, None]:
        pending = [(OWN, self._root)]
        asked: set[Target] = set()
        for within, workflow in pending:
            for job, call in _calls(workflow):
                target = parse_target(call.uses, within)
                if self._local_only and target.repository:
                    continue
                if target not in asked:
                    if len(asked) >= MAX_CALLED:
                        message = f"The workflow calls more than {MAX_CALLED} unique reusable workflows"
                        self._problem(workflow, call.position, message)
                        return
                    asked.add(target)
                    if (called := self._read(workflow, call, target, (yield target))) is not None:
                        self.found[target] = called
                        self._edges[target] = {}
                        pending.append((target, called))
                if target in self.found:
                    self._edges[within].setdefault(target, job)
                    self._check_call(workflow, call, self.found[target])

    def _problem(self, workflow: Workflow, position: Position, message: str, expected: str = "") -> None:
        self.problems.append(Problem(workflow.path, position, message, expected))

    def _read(self, caller: Workflow, call: Call, target: Target, content: bytes | None) -> Workflow | None:
        if content is None:
            message = f"error parsing called workflow '{target}': workflow was not found."
            self._problem(caller, call.position, message, "a file of the repository")
            return None
        try:
            called = read_workflow(content, str(target).removeprefix("./"))
        except WorkflowError as error:
            self.problems += error.errors
            return None
        if "workflow_call" not in called.on:
            message = (
                f"error parsing called workflow '{target}': workflow is not reusable as it is missing a "
                "`on.workflow_call` trigger"
            )
            self._problem(caller, call.position, message)
            return None
        return called

    def _check_call(self, caller: Workflow, call: Call, called: Workflow) -> None:
        for message in _call_mistakes(call, called):
            self._problem(caller, call.position, message)

    def check(self) -> None:
        """What only the whole shows."""
        try:
            order = list(
                TopologicalSorter({target: edges.keys() for target, edges in self._edges.items()}).static_order()
            )
        except CycleError as error:
            cycle: list[Target] = list(reversed(error.args[1]))
            job = self._edges[cycle[0]][cycle[1]]
            path = " -> ".join(str(target) if target != OWN else self._root.path for target in cycle)
            self._problem(self._file(cycle[0]), job.position, f"job '{job.id}' calls a workflow that calls it: {path}")
            return
        self._check_levels(order)
        self._check_permissions()

    def _file(self, target: Target) -> Workflow:
        return self._root if target == OWN else self.found[target]

    def _check_levels(self, order: list[Target]) -> None:
        levels = {OWN: 1}
        for target in reversed(order):
            for called, job in self._edges[target].items():
                levels[called] = max(levels.get(called, 0), levels[target] + 1)
                if levels[called] == MAX_LEVELS + 1:
                    message = (
                        f"job '{job.id}' calls workflow '{called}', but doing so would exceed the limit on called "
                        f"workflow depth of {MAX_LEVELS}"
                    )
                    self._problem(self._file(target), job.position, message)

    def _check_permissions(self) -> None:
        """Jobs of called workflows may ask for no more than the job that calls has."""
        pending: list[tuple[Target, Permissions | None]] = [(OWN, None)]
        seen: set[tuple[Target, tuple[tuple[str, str], ...] | None]] = set()
        for within, allowed in pending:
            key = (within, None if allowed is None else tuple(granted(allowed).items()))
            if key in seen or len(seen) >= _MAX_VISITS:
                continue
            seen.add(key)
            workflow = self._file(within)
            for job in workflow.jobs.values():
                has = effective(workflow.permissions, job.permissions, allowed)
                if message := describe_excess(job.id, has, allowed):
                    self._problem(workflow, job.position, message)
                if job.call is not None and (target := parse_target(job.call.uses, within)) in self.found:
                    pending.append((target, has))


def _calls(workflow: Workflow) -> Iterator[tuple[Job, Call]]:
    for job in workflow.jobs.values():
        if job.call is not None:
            yield job, job.call


def _call_mistakes(call: Call, called: Workflow) -> Iterator[str]:
    """What is wrong with a call, as far as that is known before it is evaluated."""
    trigger = called.on["workflow_call"]
    inputs = read_inputs(trigger)
    if call.with_.expression is None:
        yield from call_mistakes(inputs, call.with_.entries)
    by_name = {fold(one.name): one for one in inputs}
    for name, template in call.with_.entries.items():
        one = by_name.get(fold(name))
        if one is not None and template.is_literal and (mistake := type_mistake(one, _literal(template.parts))):
            yield mistake
    if not call.inherit_secrets:
        yield from _secret_mistakes(call.secrets, declared_secrets(called))


def _literal(parts: tuple[object, ...]) -> str | bool | float | None:
    value = parts[0] if parts else None
    return value if isinstance(value, bool | int | float | str) else None


def _secret_mistakes(given: TemplateMap, declared: Mapping[str, bool]) -> Iterator[str]:
    known, names = {fold(name) for name in declared}, {fold(name) for name in given.entries}
    for name in given.entries:
        if fold(name) not in known:
            yield f"Invalid secret, {name} is not defined in the referenced workflow."
    for name, required in declared.items():
        if required and fold(name) not in names:
            yield f"Secret {name} is required, but not provided while calling."


def declared_secrets(called: Workflow) -> dict[str, bool]:
    """The secrets a reusable workflow declares, and whether it requires them."""
    trigger = called.on.get("workflow_call")
    declared = trigger.get("secrets") if isinstance(trigger, Mapping) else None
    if not isinstance(declared, Mapping):
        return {}
    return {name: isinstance(entry, Mapping) and entry.get("required") is True for name, entry in declared.items()}
