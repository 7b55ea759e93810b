"""What a step writes, line by line: shown, or done where it is a command or a problem a matcher knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from firebrick.node.errors import StepError
from firebrick.node.step.bench import Bench
from firebrick.node.step.filecommand import add_environment, add_path
from firebrick.node.step.matching import add_matchers, problem_message, remove_matchers
from firebrick.node.step.outputs import StepOutputs
from firebrick.workflow.command.command import (
    AddMatcher,
    AddPath,
    CommandReader,
    Debug,
    EndGroup,
    Group,
    Mask,
    Message,
    Parsed,
    Refused,
    RemoveMatcher,
    SaveState,
    SetEnv,
    SetOutput,
    Text,
    refusal,
)
from firebrick.workflow.command.file import FileCommandError
from firebrick.workflow.command.matcher import MAX_SLOW, Hit


@dataclass(slots=True)
class Heard:
    """What a step has said besides its log. `refused`: one of its commands could not be processed, and the step fails. `state` is for
    the later phases of an action."""

    outputs: StepOutputs = field(default_factory=StepOutputs)
    state: StepOutputs = field(default_factory=StepOutputs)
    refused: bool = False


class Listener:
    """Hears one step, whose environment is `env`; `state` is added to. Lines must come in their order, one `hear` after the other."""

    def __init__(self, bench: Bench, number: int, env: Mapping[str, str], state: StepOutputs | None = None) -> None:
        self._bench = bench
        self._number = number
        self._reader = CommandReader(
            bench.paths.workspace,
            allow_unsecure=_allowed(env, "ACTIONS_ALLOW_UNSECURE_COMMANDS"),
            allow_tokens=_allowed(env, "ACTIONS_ALLOW_UNSECURE_STOPCOMMAND_TOKENS"),
            echo=bench.log.debugging,
        )
        self.heard = Heard(state=StepOutputs() if state is None else state)
        self._problems = bench.matchers.reader()

    async def hear(self, lines: Iterable[str]) -> None:
        """Act on what these lines are. Lines that are nothing but text go to the log together."""
        plain: list[str] = []
        for line in lines:
            if "::" not in line and "##[" not in line and not self._bench.matchers:
                plain.append(line)
                continue
            self._bench.log.lines(self._number, plain)
            plain.clear()
            await self._understand(line)
        self._bench.log.lines(self._number, plain)

    async def _understand(self, line: str) -> None:
        found = self._reader.feed(line)
        if found == (Text(line),):
            await self._show(line)
            return
        self._bench.log.spend(
            self._number, len(line) + 1
        )  # a command takes of the log's limit, whether or not it shows
        for parsed in found:
            await self._act(parsed)

    async def _show(self, line: str) -> None:
        """A line of text: where a matcher knows it, it is an annotation, and stands in the log with its level."""
        hit, removed = self._problems.feed(line) if self._bench.matchers else (None, ())
        for owner in removed:
            self._warn(f"Removing issue matcher '{owner}'. It was too slow {MAX_SLOW} times.")
        if hit is None:
            self._bench.log.line(self._number, line)
        else:
            await self._report(hit, line)

    async def _report(self, hit: Hit, line: str) -> None:
        counted = self._bench.log.annotates(self._number, hit.severity)
        self._bench.log.annotate(self._number, await problem_message(self._bench, hit, line, locate=counted))

    async def _act(self, parsed: Parsed) -> None:
        log, number = self._bench.log, self._number
        match parsed:
            case Text(text):
                log.line(number, text)
            case Group(title):
                log.line(number, f"##[group]{title}")
            case EndGroup():
                log.line(number, "##[endgroup]")
            case Debug(text):
                log.debug(number, text)
            case Message():
                log.annotate(number, parsed)
            case Mask(value):
                log.add_mask(number, value)
            case Refused(command, message):
                self._refuse(command, message)
            case AddMatcher(path):
                await add_matchers(self._bench, number, path)
            case RemoveMatcher(owner, path):
                await remove_matchers(self._bench, number, owner, path)
            case _:
                self._keep(parsed)

    def _keep(self, parsed: SetOutput | SaveState | SetEnv | AddPath) -> None:
        name = "add-path" if isinstance(parsed, AddPath) else parsed.name
        try:
            match parsed:
                case SetOutput(name, value):
                    self.heard.outputs.set(name, value)
                case SaveState(name, value):
                    self.heard.state.set(name, value)
                case SetEnv(name, value):
                    add_environment(self._bench, {name: value})
                case AddPath(path):
                    add_path(self._bench, (path,))
        except StepError as error:
            self._refuse(name, f"{error} {error.hint}")
        except FileCommandError as error:
            self._refuse(name, str(error))

    def _refuse(self, command: str, message: str) -> None:
        self.heard.refused = True
        self._bench.log.fault(self._number, refusal(command))
        self._bench.log.fault(self._number, message)

    def _warn(self, message: str) -> None:
        self._bench.log.annotate(self._number, Message(level="warning", message=message))


def _allowed(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").lower() == "true"
