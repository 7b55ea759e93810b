"""What the steps of a job have left for its later ones, as it is carried from one machine to another: outcomes, and actions that are not done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from firebrick.node.action.use import CompositeUse, DockerUse, Entry, JavaScriptUse
from firebrick.node.errors import NodeError
from firebrick.node.step.bench import Bench, Caller
from firebrick.text import encodable
from firebrick.workflow.command.matcher import MatcherError
from firebrick.workflow.command.matcher_file import parse_matchers
from firebrick.workflow.outcome import StepOutcome

Texts = Mapping[str, str]


class Outcome(msgspec.Struct, frozen=True):
    """A `StepOutcome`."""

    outcome: str
    conclusion: str
    outputs: Texts


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """An action that has begun. `index` is its step's in the list it stands in, `state` what it left for its later phases; of a composite one, `inner`
    are the actions within it, `outcomes` how its steps ended."""

    index: int
    state: Texts = {}
    inner: tuple[Used, ...] | None = None
    outcomes: Mapping[str, Outcome] = {}


def outcomes_of(bench: Bench) -> dict[str, Outcome]:
    return {name: Outcome(step.outcome, step.conclusion, texts(step.outputs)) for name, step in bench.outcomes.items()}


def outcomes_from(outcomes: Mapping[str, Outcome]) -> dict[str, StepOutcome]:
    return {name: StepOutcome(step.outcome, step.conclusion, step.outputs) for name, step in outcomes.items()}


def matchers_of(bench: Bench) -> tuple[bytes, ...]:
    """The files of the problem matchers that are looked for, those added first at the beginning."""
    files = (bench.variables.matchers.get(owner.lower()) for owner in reversed(bench.matchers.owners))
    return tuple(dict.fromkeys(file for file in files if file is not None))


def add_again(bench: Bench, files: Sequence[bytes]) -> None:
    """Look for the problems of these files. Raises NodeError for what describes none."""
    try:
        for file in files:
            matchers = parse_matchers(file)
            bench.matchers.add(matchers)
            bench.note_matchers(file, matchers)
    except MatcherError as error:
        raise NodeError(f"cannot go on from the machine: its problem matchers cannot be read: {error}") from error


def uses_of(bench: Bench, entries: Sequence[Entry]) -> tuple[Used, ...]:
    """The actions of a list of steps that have begun, in the order they did."""
    return tuple(_used(entry, entries.index(entry)) for entry in bench.posts)


def _used(entry: Entry, index: int) -> Used:
    match entry.use:
        case JavaScriptUse(state=state) | DockerUse(state=state):
            return Used(index=index, state=texts(state))
        case CompositeUse(inner=inner, entries=own) if inner is not None:
            return Used(index=index, inner=uses_of(inner, own), outcomes=outcomes_of(inner))
        case _:
            return Used(index=index)


async def take_up(bench: Bench, entries: Sequence[Entry], used: Sequence[Used]) -> None:
    """Make the actions what they were. Those of the workspace are read again. Raises NodeError, AgentError."""
    for each in used:
        if not 0 <= each.index < len(entries):
            raise NodeError("cannot go on from the machine: the job has other steps now")
        entry = entries[each.index]
        if entry.use is None and entry.step.uses is not None:
            workspace = bench.paths.workspace
            entry.use = await bench.supplies.actions.open_local(entry.step.uses, bench.guest, workspace, bench.depth)
        bench.posts.append(entry)
        match entry.use:
            case JavaScriptUse(state=state) | DockerUse(state=state):
                for name, value in each.state.items():
                    state.set(name, value)
            case CompositeUse() as use if each.inner is not None:
                inner = use.inner = bench.within(_caller(bench, use))
                inner.outcomes.update(outcomes_from(each.outcomes))
                await take_up(inner, use.entries, each.inner)
            case _:
                pass


def _caller(bench: Bench, use: CompositeUse) -> Caller:
    """Until the action's next phase begins, and brings its own."""
    return Caller(bench=bench, place=use.place, env={}, inputs={}, deadline=None, depth=bench.depth + 1)


def texts(values: Texts) -> dict[str, str]:
    """As UTF-8 can hold them."""
    return {encodable(name): encodable(value) for name, value in values.items()}
