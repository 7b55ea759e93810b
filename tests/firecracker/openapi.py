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


class OpenApiError(AssertionError):
    """Something Firecracker's description does not know."""


class OpenApi:
    """The description of one release. Strict as Firecracker is: a field it does not know is an error."""

    def __init__(self, release: str) -> None:
        text = (_DIRECTORY / f"firecracker-v{release}.yaml").read_text()
        self._document = YAML(typ="safe").load(text)
        for definition in self._document["definitions"].values():
            _close(definition)
        if release == OLDEST:  # says objects where Firecracker wants lists; the later one says it right
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


@functools.cache
def openapi(release: str) -> OpenApi:
    return OpenApi(release)


def _close(definition: dict[str, Any]) -> None:
    if "properties" in definition:
        definition.setdefault("additionalProperties", False)
        for nested in definition["properties"].values():
            if isinstance(nested, dict):
                _close(nested)
