"""Where the common part of a matrix ends: a step that says so, and does nothing where nobody listens to it.

    - run: 'true'
      env: {FIREBRICK_FORK: matrix}

Everything before that step is the same for every combination, and is run once. So nothing there may ask which combination it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from firebrick.workflow.problem import Position
from firebrick.workflow.syntax import ControlKind, Job, Step
from firebrick.workflow.template import Template, TemplateMap

VARIABLE = "FIREBRICK_FORK"
_VALUE = "matrix"
_VARYING = frozenset({"matrix", "strategy"})


def fork_point(job: Job) -> int | None:
    """The number of the step from which on combinations differ, from 0; None where the job has no matrix or does not say."""
    if job.strategy is None or job.strategy.matrix is None:
        return None
    return next((number for number, step in enumerate(job.steps) if _is_fork(step)), None)


def check_fork(job: Job, problem: Callable[[Position, str, str], None]) -> None:
    """Report what keeps the common part from being one."""
    marks = [(number, step) for number, step in enumerate(job.steps) if _is_fork(step)]
    for _, step in marks:
        value = step.env.entries[VARIABLE]
        if not value.is_literal or value.raw != _VALUE:
            problem(value.position, f"Unexpected value '{value.raw}' for {VARIABLE}", _VALUE)
    for _, step in marks[1:]:
        problem(step.env.entries[VARIABLE].position, "The common part of a job can end only once", "one such step")
    if marks and job.strategy is not None and job.strategy.matrix is not None:
        if job.services:
            message = (
                "A job with services has no common part: they are machines of their own, and begin anew for each job"
            )
            problem(marks[0][1].env.entries[VARIABLE].position, message, "a job without `services`")
        if _in_background(job.steps[: marks[0][0]]):
            message = "A step before this one still runs in the background, where the jobs of the matrix part"
            problem(marks[0][1].env.entries[VARIABLE].position, message, "a step with `wait-all` before this one")
        for position, what in _varying(job, job.steps[: marks[0][0]]):
            message = (
                f"{what} is part of what the jobs of the matrix have in common, and may not use `matrix` or `strategy`"
            )
            problem(position, message, f"a step behind the one with {VARIABLE}")


def _is_fork(step: Step) -> bool:
    return VARIABLE in step.env.entries


def _in_background(steps: tuple[Step, ...]) -> bool:
    """Whether a step of these was begun and not waited for."""
    begun: set[int] = set()
    for number, step in enumerate(steps):
        if step.control is not None:
            begun -= begun if step.control.kind is ControlKind.WAIT_ALL else set(step.control.targets)
        elif step.background:
            begun.add(number)
    return bool(begun)


def _varying(job: Job, common: tuple[Step, ...]) -> Iterator[tuple[Position, str]]:
    """What asks for the combination, before the combinations part."""
    of_job = (*job.runs_on, *_templates(job.env), job.defaults.shell, job.defaults.working_directory)
    if (container := job.container) is not None:
        of_job = (*of_job, container.image, container.options, *_templates(container.env))
    if job.environment is not None:  # it gives secrets, which what is common would take along to jobs of another one
        of_job = (*of_job, job.environment.name)
    for template in of_job:
        if template is not None and template.contexts & _VARYING:
            yield template.position, f"`{template.raw}` of the job"
    for step in common:
        if step.if_.expression.contexts & _VARYING:
            yield step.if_.position, "The condition of this step"
        for template in _of_step(step):
            if template.contexts & _VARYING:
                yield template.position, "This"


def _of_step(step: Step) -> Iterator[Template]:
    single = (step.name, step.run, step.shell, step.working_directory, step.timeout_minutes, step.continue_on_error)
    yield from (template for template in single if template is not None)
    yield from _templates(step.with_)
    yield from _templates(step.env)


def _templates(texts: TemplateMap) -> Iterator[Template]:
    yield from texts.entries.values()
    if texts.expression is not None:
        yield texts.expression
