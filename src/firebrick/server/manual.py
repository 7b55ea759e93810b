"""The API's description as one page: made from the OpenAPI document, without scripts, and with nothing fetched from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any, Final

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
h2{font:600 1rem ui-monospace,monospace;background:#f3ede7;padding:.4rem .6rem;border-left:4px solid #b5482a;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}
code{font-family:ui-monospace,monospace}
@media(prefers-color-scheme:dark){body{background:#16120f;color:#e8e2dc}h2{background:#2a221c}td,th{border-color:#443a33}a{color:#f0a080}}
"""


def manual_page(openapi: dict[str, Any]) -> str:
    """The page for this document."""
    info = openapi["info"]
    schemas = openapi.get("components", {}).get("schemas", {})
    operations = [
        _operation(path, method, operation, schemas)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a></p>{"".join(operations)}</html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = [_row(p["name"], p["in"], p["schema"], p.get("description", "")) for p in operation.get("parameters", [])]
    for media in operation.get("requestBody", {}).get("content", {}).values():
        body = _resolve(media["schema"], schemas)
        rows += [
            _row(name, "body", field, field.get("description", ""))
            for name, field in body.get("properties", {}).items()
        ]
    for status, response in operation["responses"].items():
        for media in response.get("content", {}).values():
            answer = _resolve(media.get("schema", {}), schemas)
            if status.startswith("2"):
                rows += [
                    _row(n, "answer", field, field.get("description", ""))
                    for n, field in answer.get("properties", {}).items()
                ]
    table = f"<table><tr><th>name<th>where<th>type<th>meaning{''.join(rows)}</table>" if rows else ""
    what = escape(operation.get("description") or operation.get("summary", ""))
    return f"<h2>{method.upper()} {escape(path)}</h2><p>{what}</p>{table}"


def _row(name: str, where: str, schema: dict[str, Any], meaning: str) -> str:
    default = f" (default {escape(str(schema['default']))})" if schema.get("default") not in (None, "") else ""
    return f"<tr><td><code>{escape(name)}</code><td>{where}<td>{escape(_type(schema))}{default}<td>{escape(meaning)}"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type") or schema.get("$ref", "any").rpartition("/")[2])


def _resolve(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema a reference, or a list of references, is about."""
    if schema.get("type") == "array":
        schema = schema.get("items", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = schemas.get(name, schema)
    return found
