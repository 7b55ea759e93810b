"""Firecracker's API as its own description has it: which requests there are, and what their bodies may hold."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator
from ruamel.yaml import YAML

_DIRECTORY = Path(__file__).parent
NEWEST = "1.16.1"
OLDEST = "1.12.1"

LATER: Mapping[tuple[int, int], tuple[str, ...]] = {
    (1, 13): ("SnapshotLoadParams.track_dirty_pages", "MmdsConfig.imds_compat"),
    (1, 14): (
        *("/serial", "/pmem/{id}", "/hotplug/memory"),
        *("/balloon/hinting/start", "/balloon/hinting/status", "/balloon/hinting/stop"),
        *("Balloon.free_page_hinting", "Balloon.free_page_reporting"),
        *("FullVmConfiguration.memory-hotplug", "FullVmConfiguration.pmem"),
        *(f"BalloonStats.{name}" for name in ("oom_kill", "alloc_stall", "async_scan", "direct_scan")),
        *("BalloonStats.async_reclaim", "BalloonStats.direct_reclaim"),
    ),
    (1, 16): (
        *("SnapshotLoadParams.vsock_override", "SnapshotLoadParams.clock_realtime"),
        *("SerialDevice.rate_limiter", "NetworkInterface.mtu"),
    ),
}
"""What the newest description has, and releases before these have not: paths, and fields of bodies. The releases between the two that are described
are taken for the newest without it."""


class OpenApiError(AssertionError):
    """Something Firecracker's description does not know."""


class OpenApi:
    """The description of one release. Strict as Firecracker is: a field it does not know is an error."""

    def __init__(self, release: str) -> None:
        minor = _minor(release)
        described = OLDEST if minor == _minor(OLDEST) else NEWEST
        self._document = document(described)
        if described == NEWEST:
            for name in (name for since, names in LATER.items() if minor < since for name in names):
                _leave_out(self._document, name)
        for definition in self._document["definitions"].values():
            _close(definition)
        if described == OLDEST:  # says objects where Firecracker wants lists; the later one says it right
            self._document["definitions"]["CpuConfig"] = {"type": "object"}

    def check_request(self, method: str, path: str, body: Any) -> None:
        operation = self._operation(method, path)
        schemas = [p["schema"] for p in operation.get("parameters", []) if p["in"] == "body"]
        if not schemas:
            if body is not None:
                raise OpenApiError(f"{method} {path} has no body")
            return
        self._check(schemas[0], body, f"{method} {path}")

    def check_answer(self, method: str, path: str, status: int, body: Any) -> None:
        responses = {str(key): value for key, value in self._operation(method, path)["responses"].items()}
        response = responses.get(str(status)) or responses["default"]
        if "schema" in response:
            self._check(response["schema"], body, f"answer {status} to {method} {path}")
        elif body is not None:
            raise OpenApiError(f"answer {status} to {method} {path} has no body")

    def knows(self, method: str, path: str) -> bool:
        try:
            self._operation(method, path)
        except OpenApiError:
            return False
        return True

    def _operation(self, method: str, path: str) -> Mapping[str, Any]:
        for template, operations in self._document["paths"].items():
            pattern = re.sub(r"\\{[a-z_]+\\}|\{[a-z_]+\}", r"[A-Za-z0-9_]+", template)
            if re.fullmatch(pattern, path) and method.lower() in operations:
                return operations[method.lower()]
        raise OpenApiError(f"there is no {method} {path}")

    def _check(self, schema: Mapping[str, Any], value: Any, what: str) -> None:
        whole = {**schema, "definitions": self._document["definitions"]}
        errors = sorted(Draft4Validator(whole).iter_errors(value), key=str)
        if errors:
            raise OpenApiError(f"{what}: {errors[0].json_path}: {errors[0].message}")


def document(release: str) -> dict[str, Any]:
    """One that is described, as it is written."""
    return YAML(typ="safe").load((_DIRECTORY / f"firecracker-v{release}.yaml").read_text())


def _minor(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor)


def _leave_out(whole: dict[str, Any], name: str) -> None:
    if name.startswith("/"):
        del whole["paths"][name]
    else:
        definition, field = name.split(".")
        del whole["definitions"][definition]["properties"][field]


@functools.cache
def openapi(release: str) -> OpenApi:
    return OpenApi(release)


def _close(definition: dict[str, Any]) -> None:
    if "properties" in definition:
        definition.setdefault("additionalProperties", False)
        for nested in definition["properties"].values():
            if isinstance(nested, dict):
                _close(nested)
