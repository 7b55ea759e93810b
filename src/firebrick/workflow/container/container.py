"""`container` and `services` of a job, evaluated: what image, and how it is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from firebrick.workflow.container.options import ContainerOptions, parse_options
from firebrick.workflow.expression.expression import EvaluationError, Scope, Value, to_text
from firebrick.workflow.expression.value import is_array, is_primitive
from firebrick.workflow.syntax import Container, Credentials, Services
from firebrick.workflow.template import Template

MOST_SERVICES: Final = 16
MOST_PORTS: Final = 64
"""Of one container."""

_SERVICE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_ADDRESS = r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:.]{2,45}\]):"
_PORT = re.compile(rf"(?:{_ADDRESS})?(?:(\d{{1,5}}):)?(\d{{1,5}})(?:/(tcp|udp|sctp))?")
_KEYS = frozenset({"image", "env", "ports", "volumes", "options", "credentials", "entrypoint", "command"})


@dataclass(frozen=True, slots=True)
class Port:
    """`host` is 0 where any will do."""

    container: int
    host: int = 0
    transport: str = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Of a registry."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container. `entrypoint` and `command` are None where the image decides."""

    image: str
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    volumes: tuple[str, ...] = ()
    options: ContainerOptions = field(default_factory=ContainerOptions)
    login: Login | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None


def container_spec(container: Container, scope: Scope) -> ContainerSpec | None:
    """None where the image is an empty text: no container is wanted. Raises EvaluationError."""
    value = container.image.value(scope)
    if isinstance(value, Mapping):
        return _of_mapping(value)
    image = container.image.text(scope).strip()
    if not image:
        return None
    return ContainerSpec(
        image=image,
        env=container.env.texts(scope),
        ports=_ports(container.ports.texts(scope)),
        volumes=container.volumes.texts(scope),
        options=parse_options(_text(container.options, scope)),
        login=_login(container.credentials, scope),
        entrypoint=_words(container.entrypoint, scope),
        command=_words(container.command, scope),
    )


def service_specs(services: Services, scope: Scope) -> dict[str, ContainerSpec]:
    """Every service that is wanted, by name. Raises EvaluationError."""
    specs = _named(services, scope)
    if len(specs) > MOST_SERVICES:
        raise EvaluationError(f"A job may have {MOST_SERVICES} services, and this one has {len(specs)}")
    for name in specs:
        if not _SERVICE_NAME.fullmatch(name):
            raise EvaluationError(f"'{name[:100]}' cannot be the name of a service: it must be one of a host")
    return {name: spec for name, spec in specs.items() if spec is not None}


def _named(services: Services, scope: Scope) -> dict[str, ContainerSpec | None]:
    if services.expression is None:
        return {name: container_spec(container, scope) for name, container in services.entries.items()}
    value = services.expression.value(scope)
    if not isinstance(value, Mapping):
        raise EvaluationError("Expected a mapping")
    return {name: _of_value(each) for name, each in value.items()}


def _of_value(value: Value) -> ContainerSpec | None:
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if not is_primitive(value):
        raise EvaluationError("A sequence was not expected")
    return ContainerSpec(image=to_text(value)) if to_text(value) else None


def _of_mapping(value: Mapping[str, Value]) -> ContainerSpec | None:
    """A container that an expression gave as a whole."""
    unknown = sorted(value.keys() - _KEYS)
    if unknown:
        raise EvaluationError(f"Unexpected value '{unknown[0]}'")
    image = _plain(value, "image")
    if not image:
        return None
    env = value.get("env") or {}
    if not isinstance(env, Mapping):
        raise EvaluationError("Expected a mapping")
    return ContainerSpec(
        image=image,
        env={name: to_text(each) for name, each in env.items()},
        ports=_ports(_sequence(value, "ports")),
        volumes=_sequence(value, "volumes"),
        options=parse_options(_plain(value, "options")),
        login=_plain_login(value.get("credentials")),
        entrypoint=parse_command(_plain(value, "entrypoint")) or None,
        command=parse_command(_plain(value, "command")) or None,
    )


def _plain(value: Mapping[str, Value], key: str) -> str:
    each = value.get(key)
    if not is_primitive(each):
        raise EvaluationError(f"Expected a scalar value for '{key}'")
    return to_text(each)


def _sequence(value: Mapping[str, Value], key: str) -> tuple[str, ...]:
    each = value.get(key)
    if each is None:
        return ()
    if not isinstance(each, Sequence) or not is_array(each):
        raise EvaluationError(f"Expected a sequence for '{key}'")
    return tuple(to_text(item) for item in each)


def _ports(texts: Sequence[str]) -> tuple[Port, ...]:
    if len(texts) > MOST_PORTS:
        raise EvaluationError(f"A container may have {MOST_PORTS} ports, and this one has {len(texts)}")
    return tuple(map(parse_port, texts))


def parse_port(text: str) -> Port:
    """A port as a container has it in its list. Raises EvaluationError."""
    text = text.strip()
    match = _PORT.fullmatch(text[:100])
    host, container = (int(match[1] or 0), int(match[2])) if match else (0, 0)
    if match is None or not 0 < container < 65536 or host >= 65536:
        raise EvaluationError(
            f"Unexpected value '{text[:100]}' for a port: it is `8080:80`, `80`, or one with /tcp or /udp"
        )
    return Port(container, host, match[3] or "tcp")


def _text(template: Template | None, scope: Scope) -> str:
    return "" if template is None else template.text(scope)


def _words(template: Template | None, scope: Scope) -> tuple[str, ...] | None:
    return parse_command(_text(template, scope)) or None


def parse_command(text: str) -> tuple[str, ...]:
    """The words of a command line. Raises EvaluationError."""
    try:
        return tuple(shlex.split(text[: 64 << 10]))
    except ValueError as error:
        raise EvaluationError(f"The command line '{text[:100]}' cannot be read: {error}") from error


def _login(credentials: Credentials | None, scope: Scope) -> Login | None:
    if credentials is None:
        return None
    if credentials.expression is not None:
        return _plain_login(credentials.expression.value(scope))
    return _both(_text(credentials.username, scope), _text(credentials.password, scope))


def _plain_login(value: Value) -> Login | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise EvaluationError("Expected a mapping")
    return _both(_plain(value, "username"), _plain(value, "password"))


def _both(username: str, password: str) -> Login | None:
    """Nothing of both, as a secret that is not there gives, is no login."""
    if not username and not password:
        return None
    if not username or not password:
        raise EvaluationError("The credentials of a container need a username and a password")
    return Login(username=username, password=password)
