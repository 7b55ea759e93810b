"""Builds that wait for their environments: what each waits for, and letting those go on that need not wait any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from firebrick.server.build import Dependencies
from firebrick.server.environment import Environment, Ruling, rule
from firebrick.server.gate import Gate
from firebrick.server.record import Build, State
from firebrick.workflow.expression.value import fold


@dataclass(frozen=True, slots=True)
class Held:
    """A gate and what its environment says of it now."""

    gate: Gate
    ruling: Ruling


class Gatekeeper:
    """Stateless: all it knows is in the store and the settings."""

    def __init__(self, deps: Dependencies) -> None:
        self._deps = deps

    async def held(self, build: Build) -> list[Held]:
        """Every environment that jobs of the build have come to."""
        now = self._deps.clock.now()
        known = {fold(each.name): each for each in self._environments(build)}
        return [
            Held(gate, rule(known[fold(gate.environment)], build.ref, gate, now))
            if fold(gate.environment) in known
            else Held(gate, Ruling())
            for gate in await self._deps.store.gates.of(build.id)
        ]

    async def admit(self) -> datetime | None:
        """Let every build go on of which something may; when the next one may by itself."""
        times: list[datetime] = []
        for build in await self._deps.store.in_states({State.WAITING}):
            times += await self.admit_build(build)
        return min(times, default=None)

    async def admit_build(self, build: Build) -> list[datetime]:
        """The same for one: when it may go on by itself, where it may not yet."""
        held = [each for each in await self.held(build) if each.gate.waits]
        if held and all(each.ruling.waits for each in held):
            return [each.ruling.until for each in held if each.ruling.until is not None]
        released = await self._deps.store.release(build)
        if released is not None:
            self._deps.publish(released)
            self._deps.news.set()
        return []

    def _environments(self, build: Build) -> tuple[Environment, ...]:
        settings = self._deps.settings
        return settings.repository_for(settings.address_of(build.request.repo_url).place).known_environments
