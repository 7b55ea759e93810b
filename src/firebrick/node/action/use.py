"""A step's action through its phases: `pre` before the first step of the job, `main` at its place, `post` after the last one, in reverse.

An `Entry` is one step of a list, of the job's or of a composite action's, with all its phases share.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from firebrick.node.container.image import ContainerImage
from firebrick.node.step.outputs import StepOutputs
from firebrick.workflow.action_file import ActionFile, CompositeRuns, DockerRuns, JavaScriptRuns
from firebrick.workflow.context import action_names
from firebrick.workflow.syntax import Step
from firebrick.workflow.template import Condition

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench

NativeRun = Callable[["Bench", int, Mapping[str, str]], Coroutine[Any, Any, dict[str, str]]]


class Phase(StrEnum):
    PRE = "pre"
    MAIN = "main"
    POST = "post"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an action is in the machine, and which one it is; `repository` and `ref` are empty for one of the workspace. `tree` names the
    repository it belongs to (see `JobActions.place`), which has to be there first."""

    path: str
    repository: str = ""
    ref: str = ""
    tree: str = ""


@dataclass(frozen=True, slots=True)
class NativeUse:
    """An action the node does itself; it has no phases but the main one. The result of `run` are its outputs; `inputs` are the names it has in its
    versions, whether they mean something here or not."""

    run: NativeRun
    inputs: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class JavaScriptUse:
    """`state` is what one phase leaves for the next."""

    file: ActionFile
    runs: JavaScriptRuns
    place: Place
    state: StepOutputs = field(default_factory=StepOutputs)

    def script(self, phase: Phase) -> str | None:
        match phase:
            case Phase.PRE:
                return self.runs.pre
            case Phase.MAIN:
                return self.runs.main
            case Phase.POST:
                return self.runs.post


@dataclass(slots=True, kw_only=True)
class CompositeUse:
    """`inner` is the bench of its steps, from its first phase on."""

    file: ActionFile
    runs: CompositeRuns
    place: Place
    entries: tuple[Entry, ...]
    inner: Bench | None = None


@dataclass(slots=True, kw_only=True)
class DockerUse:
    """`state` is what one phase leaves for the next, `built` the image of its Dockerfile once that is known."""

    file: ActionFile
    runs: DockerRuns
    place: Place
    built: ContainerImage | None = None
    state: StepOutputs = field(default_factory=StepOutputs)


Use = NativeUse | JavaScriptUse | CompositeUse | DockerUse


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """`name` is GITHUB_ACTION. `use` is None where the step uses nothing, and until it is known what it uses."""

    step: Step
    name: str
    use: Use | None = None


def entries_of(steps: Iterable[Step]) -> tuple[Entry, ...]:
    steps = tuple(steps)
    names = action_names((step.id if step.control is None else f"__{step.control.kind}", step.uses) for step in steps)
    return tuple(Entry(step=step, name=name) for step, name in zip(steps, names, strict=True))


def has_phase(use: Use | None, phase: Phase) -> bool:
    """Whether there is something to do in it. Of a composite action the post phase is known when its steps have run."""
    match use:
        case JavaScriptUse():
            return use.script(phase) is not None
        case DockerUse(runs=runs) if phase is not Phase.MAIN:
            return (runs.pre_entrypoint if phase is Phase.PRE else runs.post_entrypoint) is not None
        case CompositeUse() if phase is Phase.PRE:
            return any(has_phase(entry.use, phase) for entry in use.entries)
        case CompositeUse() if phase is Phase.POST:
            return use.inner is not None and any(has_phase(entry.use, phase) for entry in use.inner.posts)
        case _:
            return phase is Phase.MAIN


def condition_of(entry: Entry, phase: Phase) -> Condition | None:
    """What decides whether the phase runs; None where it always does."""
    if phase is Phase.MAIN:
        return entry.step.if_
    if isinstance(entry.use, JavaScriptUse | DockerUse):
        return entry.use.runs.pre_if if phase is Phase.PRE else entry.use.runs.post_if
    return None


def images_at_once(entries: Iterable[Entry], most: int) -> int:
    """How many machines of actions that are images may run at once, as far as is known, where `most` steps do in the background."""
    using = [entry.step.background for entry in entries if uses_image((entry,))]
    return min(sum(using), most) + (False in using)


def uses_image(entries: Iterable[Entry]) -> bool:
    """Whether one of these steps is known to use an action that is an image, itself or within another."""
    uses = [entry.use for entry in entries]
    return any(
        isinstance(use, DockerUse) or (isinstance(use, CompositeUse) and uses_image(use.entries)) for use in uses
    )
