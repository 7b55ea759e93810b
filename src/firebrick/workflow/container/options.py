"""`options` of a container: the arguments of `docker create` that mean something where every container is a machine of its own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from firebrick.workflow.expression.expression import EvaluationError

_LONGEST = 64 << 10
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)")
_MEMORY = re.compile(r"(\d{1,15})([bkmg]?)b?", re.IGNORECASE)
_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
_MEBIBYTES = {"": 1 / (1 << 20), "b": 1 / (1 << 20), "k": 1 / 1024, "m": 1.0, "g": 1024.0}
_SHORT = {"-e": "--env", "-u": "--user", "-w": "--workdir", "-h": "--hostname", "-m": "--memory"}
_FLAGS = frozenset(
    {"--no-healthcheck", "--privileged", "--init", "--rm", "--read-only", "-i", "-t", "-it", "--tty", "--interactive"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthOptions:
    """What the options say about the health check; None where they say nothing and the image decides. Times are in seconds."""

    command: str | None = None
    interval_s: float | None = None
    timeout_s: float | None = None
    start_period_s: float | None = None
    retries: int | None = None
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOptions:
    """`ignored` are the options that have no effect here."""

    health: HealthOptions = field(default_factory=HealthOptions)
    entrypoint: str | None = None
    hostname: str | None = None
    user: str | None = None
    directory: str | None = None
    memory_mib: int | None = None
    vcpus: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def parse_options(text: str) -> ContainerOptions:
    """Raises EvaluationError for what is no list of options, or a value that is none."""
    if len(text) > _LONGEST:
        raise EvaluationError(f"The options of a container have more than {_LONGEST >> 10} KiB")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise EvaluationError(f"The options of a container cannot be read: {error}") from error
    found = _Found()
    for name, value in _pairs(words):
        found.take(name, value)
    return found.options()


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """Options with their values; `--name=value` and `--name value` are the same. One that is not known has a value where a word follows."""
    rest = iter(range(len(words)))
    for at in rest:
        name, equals, value = words[at].partition("=")
        if not name.startswith("-"):
            raise EvaluationError(f"Unexpected value '{words[at]}' in the options of a container")
        name = _SHORT.get(name, name)
        if not equals and name not in _FLAGS and at + 1 < len(words) and _is_value(words[at + 1], name):
            value = words[next(rest)]
        yield name, value


def _is_value(word: str, name: str) -> bool:
    return not word.startswith("-") or name == "--health-cmd"


class _Found:
    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._env: dict[str, str] = {}
        self._ignored: dict[str, None] = {}

    def take(self, name: str, value: str) -> None:
        if name == "--env":
            key, _, its = value.partition("=")
            self._env[key] = its
        elif name in _KNOWN:
            self._texts[name] = value
        else:
            self._ignored[name] = None

    def options(self) -> ContainerOptions:
        text = self._texts.get
        health = HealthOptions(
            command=text("--health-cmd"),
            interval_s=self._seconds("--health-interval"),
            timeout_s=self._seconds("--health-timeout"),
            start_period_s=self._seconds("--health-start-period"),
            retries=self._count("--health-retries"),
            disabled="--no-healthcheck" in self._texts,
        )
        return ContainerOptions(
            health=health,
            entrypoint=text("--entrypoint"),
            hostname=self._hostname("--hostname"),
            user=text("--user"),
            directory=text("--workdir"),
            memory_mib=self._memory("--memory"),
            vcpus=self._processors("--cpus"),
            env=self._env,
            ignored=tuple(self._ignored),
        )

    def _seconds(self, name: str) -> float | None:
        text = self._texts.get(name)
        return None if text is None else parse_duration(text, name)

    def _count(self, name: str) -> int | None:
        text = self._texts.get(name)
        if text is None:
            return None
        if not re.fullmatch(r"\d{1,6}", text):
            raise _wrong(name, text, "a number")
        return int(text)

    def _hostname(self, name: str) -> str | None:
        text = self._texts.get(name)
        if text is not None and not _HOSTNAME.fullmatch(text):
            raise _wrong(name, text[:100], "the name of a host")
        return text

    def _memory(self, name: str) -> int | None:
        text = self._texts.get(name)
        if text is None:
            return None
        match = _MEMORY.fullmatch(text)
        if match is None:
            raise _wrong(name, text, "a size, as 512m or 2g")
        return max(1, round(int(match[1]) * _MEBIBYTES[match[2].lower()]))

    def _processors(self, name: str) -> int | None:
        text = self._texts.get(name)
        if text is None:
            return None
        if not re.fullmatch(r"\d{1,3}(\.\d{1,9})?", text) or float(text) <= 0:
            raise _wrong(name, text, "a number of processors")
        return max(1, round(float(text)))


_KNOWN = frozenset(
    {
        "--health-cmd", "--health-interval", "--health-timeout", "--health-start-period", "--health-retries", "--no-healthcheck",
        "--entrypoint", "--hostname", "--user", "--workdir", "--memory", "--cpus",
    }
)  # fmt: skip


def parse_duration(text: str, name: str) -> float:
    """`1m30s` in seconds. Raises EvaluationError."""
    parts = _DURATION.findall(text[:200])
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise _wrong(name, text, "a time, as 10s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _wrong(name: str, text: str, expected: str) -> EvaluationError:
    return EvaluationError(f"Unexpected value '{text}' for {name}: it takes {expected}")
