"""An `action.yml` into records: what an action takes, gives and runs, and every mistake of the file at its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from firebrick.workflow.expression.value import to_text
from firebrick.workflow.problem import Position, Problem
from firebrick.workflow.schema import allowed
from firebrick.workflow.schema.action import (
    ACTION_OF_UNKNOWN_KIND,
    COMPOSITE_ACTION,
    DOCKER_ACTION,
    JAVASCRIPT_ACTION,
    NODE_VERSIONS,
)
from firebrick.workflow.schema.shape import Fields, Walk, in_file_order
from firebrick.workflow.step_reader import check_uses_format, read_steps, template_map
from firebrick.workflow.syntax import Step
from firebrick.workflow.template import Condition, Template, TemplateMap, parse_condition
from firebrick.workflow.yaml import MappingNode, Node, ScalarNode, load_yaml

ACTION_FILES: Final = ("action.yml", "action.yaml")
"""What such a file is called; the first one counts."""
DOCKERFILES: Final = ("Dockerfile", "dockerfile")
"""What makes an action where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionInput:
    """`default` is None where the file has none. `required` is what the author says, and nothing checks it, as at GitHub. `deprecation` is
    shown where the input is given; it may be empty."""

    description: str = ""
    default: Template | None = None
    required: bool = False
    deprecation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOutput:
    """`value` is what a composite action gives; other actions set their outputs themselves, and it is None."""

    description: str = ""
    value: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeRuns:
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JavaScriptRuns:
    """Files of the action, relative to it. `using` is the version the author names, in lower case: `node20`."""

    using: str
    main: str
    pre: str | None = None
    pre_if: Condition
    post: str | None = None
    post_if: Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerRuns:
    """`image` is `Dockerfile`, another file of that kind relative to the action, or `docker://<image>`."""

    image: str
    entrypoint: str | None = None
    pre_entrypoint: str | None = None
    pre_if: Condition
    post_entrypoint: str | None = None
    post_if: Condition
    args: tuple[Template, ...] = ()
    env: TemplateMap


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionFile:
    """One action file. Inputs and outputs are by name as written; names differ by more than case. `warnings` are conditions that are not
    what they seem, and an image that is not built here."""

    name: str
    description: str
    path: str
    inputs: Mapping[str, ActionInput]
    outputs: Mapping[str, ActionOutput]
    runs: CompositeRuns | JavaScriptRuns | DockerRuns
    warnings: tuple[Problem, ...] = ()


def read_action_file(content: str | bytes, path: str) -> ActionFile:
    """The action in `content`, the text of an `action.yml`; `path` is what messages call the file. Bytes are UTF-8.

    Raises WorkflowError with all problems of the file."""
    root = load_yaml(content, path)
    walk = Walk(path, content)
    using = _find_using(root)
    kind = to_text(using.value).lower() if using is not None else ""
    fields = walk.read(root, _SHAPES.get(kind, ACTION_OF_UNKNOWN_KIND))
    if using is not None and kind and kind not in _SHAPES:
        walk.problem(
            using.position,
            f"'using: {to_text(using.value)}' is not supported, use {_KINDS} instead.",
            f"one of {', '.join(_SHAPES)}",
        )
    runs = _runs(kind, fields["runs"], walk) if _holds(fields, "runs") else None
    walk.finish(hint=f"The action cannot be used before its file {path} is correct.")
    assert runs is not None
    return ActionFile(
        name=fields.get("name", ""),
        description=fields.get("description", ""),
        path=path,
        inputs={name: _input(given) for name, given in _by_name(fields, "inputs")},
        outputs={name: _output(given) for name, given in _by_name(fields, "outputs")},
        runs=runs,
        warnings=in_file_order(walk.warnings),
    )


_SHAPES = {
    "composite": COMPOSITE_ACTION,
    "docker": DOCKER_ACTION,
    **dict.fromkeys(NODE_VERSIONS, JAVASCRIPT_ACTION),
}
_KINDS = ", ".join(f"'{name}'" for name in list(_SHAPES)[:-1]) + f" or '{list(_SHAPES)[-1]}'"


def _find_using(root: Node) -> ScalarNode | None:
    """The node of `runs.using`, which says what else `runs` may hold."""
    node: Node | None = root
    for name in ("runs", "using"):
        node = _entry(node, name) if isinstance(node, MappingNode) else None
    return node if isinstance(node, ScalarNode) else None


def _entry(node: MappingNode, name: str) -> Node | None:
    return next((value for key, value in node.entries if isinstance(key, ScalarNode) and key.value == name), None)


def _holds(fields: Any, name: str) -> bool:
    return isinstance(fields, Fields) and isinstance(fields.get(name), Fields)


def _by_name(fields: Fields, name: str) -> list[tuple[str, Fields]]:
    """Descriptions by name; one of which nothing is said is empty."""
    given = fields.get(name)
    if not isinstance(given, Fields):
        return []
    return [(each, given.get(each) or Fields(given.places[each])) for each in given.places]


def _input(fields: Fields) -> ActionInput:
    required = fields.get("required", False)
    return ActionInput(
        description=fields.get("description", ""),
        default=fields.get("default"),
        required=required if isinstance(required, bool) else required.lower() == "true",
        deprecation=fields.get("deprecationMessage", ""),
    )


def _output(fields: Fields) -> ActionOutput:
    return ActionOutput(description=fields.get("description", ""), value=fields.get("value"))


def _runs(kind: str, fields: Fields, walk: Walk) -> CompositeRuns | JavaScriptRuns | DockerRuns | None:
    """What could be read; None where it is of no kind that is known."""
    match kind:
        case "composite":
            return CompositeRuns(steps=read_steps(fields.get("steps"), walk, allowed.ACTION_STEP_IF, check_uses_format))
        case "docker":
            return _docker(fields)
        case _:
            return _javascript(kind, fields) if kind in NODE_VERSIONS else None


def _javascript(using: str, fields: Fields) -> JavaScriptRuns:
    return JavaScriptRuns(
        using=using,
        main=fields.get("main", ""),
        pre=fields.get("pre"),
        pre_if=_hook_condition(fields, "pre-if"),
        post=fields.get("post"),
        post_if=_hook_condition(fields, "post-if"),
    )


def _docker(fields: Fields) -> DockerRuns:
    return DockerRuns(
        image=fields.get("image", ""),
        entrypoint=fields.get("entrypoint"),
        pre_entrypoint=fields.get("pre-entrypoint"),
        pre_if=_hook_condition(fields, "pre-if"),
        post_entrypoint=fields.get("post-entrypoint"),
        post_if=_hook_condition(fields, "post-if"),
        args=tuple(item for item in fields.get("args", ()) if item is not None),
        env=template_map(fields.get("env")),
    )


def _hook_condition(fields: Fields, name: str) -> Condition:
    """`always()` where the file has none; and where it names no status function, it is as it is written."""
    written = fields.get(name)
    if isinstance(written, Condition):
        return written
    return parse_condition(None, Position(), allowed.ACTION_HOOK_IF, otherwise="always()")
