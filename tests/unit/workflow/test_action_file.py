"""Action files into records, and every mistake at its place."""

import pytest

from firebrick.workflow.action_file import CompositeRuns, DockerRuns, JavaScriptRuns, read_action_file
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.problem import WorkflowError

JAVASCRIPT = """
name: Cache
description: Keeps files.
author: someone
branding: {icon: archive, color: gray-dark}
inputs:
  path:
    description: What to keep.
    required: true
  Token:
    default: ${{ github.token }}
    deprecationMessage: use key
  upload:
    required: 'TRUE'
    default: false
  nothing:
outputs:
  hit:
    description: Whether it was there.
runs:
  using: Node20
  main: dist/restore.js
  post: dist/save.js
  post-if: success()
"""

COMPOSITE = """
name: Set up
inputs: {version: {default: '1'}}
outputs:
  path: {value: "${{ steps.find.outputs.path }}"}
runs:
  using: composite
  steps:
    - id: find
      run: echo "path=${{ inputs.version }}" >> "$GITHUB_OUTPUT"
      shell: bash
    - uses: ./inner
      if: runner.os == 'Linux'
      with: {a: "${{ hashFiles('x') }}"}
    - uses: docker://alpine:3
"""

DOCKER = """
inputs: {who: {}}
runs:
  using: docker
  image: Dockerfile
  pre-entrypoint: /setup.sh
  entrypoint: /main.sh
  post-entrypoint: /clean.sh
  pre-if: runner.os == 'Linux'
  args: [hello, "${{ inputs.who }}", 3]
  env: {WHO: "${{ inputs.who }}"}
"""


def errors_of(text: str | bytes) -> list[str]:
    with pytest.raises(WorkflowError) as raised:
        read_action_file(text, "action.yml")
    return [str(problem) for problem in raised.value.errors]


def runs(text: str) -> str:
    """An action with what `runs` says."""
    lines = "".join(f"\n  {line}" for line in text.strip().split("\n"))
    return f"name: x\nruns:{lines}\n"


def test_a_javascript_action():
    action = read_action_file(JAVASCRIPT, "action.yml")
    assert (action.name, action.description, action.path) == ("Cache", "Keeps files.", "action.yml")
    assert list(action.inputs) == ["path", "Token", "upload", "nothing"]
    assert [given.required for given in action.inputs.values()] == [True, False, True, False]
    assert action.inputs["path"].default is None
    scope = Scope({"github": {"token": "t"}})
    assert action.inputs["Token"].default.text(scope) == "t"
    assert action.inputs["Token"].deprecation == "use key"
    assert action.inputs["upload"].default.text(scope) == "false"
    assert action.outputs["hit"].description == "Whether it was there."
    assert action.outputs["hit"].value is None
    assert isinstance(action.runs, JavaScriptRuns)
    assert (action.runs.using, action.runs.pre) == ("node20", None)
    assert (action.runs.main, action.runs.post) == ("dist/restore.js", "dist/save.js")
    assert action.runs.pre_if.expression.functions == {"always"}
    assert action.runs.post_if.raw == "success()"


def test_a_composite_action():
    action = read_action_file(COMPOSITE.encode(), "action.yml")
    assert isinstance(action.runs, CompositeRuns)
    find, inner, image = action.runs.steps
    scope = Scope(
        {"inputs": {"version": "2"}, "steps": {"find": {"outputs": {"path": "/p"}}}, "runner": {"os": "Linux"}},
        {"success": lambda _: True, "hashFiles": lambda _: "h"},
    )
    assert find.id == "find"
    assert find.run.text(scope) == 'echo "path=2" >> "$GITHUB_OUTPUT"'
    assert find.shell.raw == "bash"
    assert inner.if_.holds(scope)
    assert inner.with_.texts(scope) == {"a": "h"}
    assert image.uses == "docker://alpine:3"
    assert action.outputs["path"].value.text(scope) == "/p"


def test_a_docker_action():
    action = read_action_file(DOCKER, "action.yml")
    assert isinstance(action.runs, DockerRuns)
    scope = Scope({"inputs": {"who": "you"}})
    assert [argument.text(scope) for argument in action.runs.args] == ["hello", "you", "3"]
    assert action.runs.env.texts(scope) == {"WHO": "you"}
    assert (action.runs.image, action.runs.entrypoint) == ("Dockerfile", "/main.sh")
    assert (action.runs.pre_entrypoint, action.runs.post_entrypoint) == ("/setup.sh", "/clean.sh")


@pytest.mark.parametrize("condition", ["runner.os == 'Linux'", "${{ runner.os == 'Linux' }}"])
def test_a_condition_of_a_hook_asks_for_no_success(condition):
    action = read_action_file(runs(f"using: node24\nmain: m.js\npost: p.js\npost-if: {condition}"), "action.yml")
    assert action.runs.post_if.expression.functions == frozenset()
    assert action.runs.post_if.holds(Scope({"runner": {"os": "Linux"}}, {"success": lambda _: False}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\n", ["action.yml (Line: 1, Col: 1): Required property is missing: runs"]),
        ("[]\n", ["action.yml (Line: 1, Col: 1): A sequence was not expected (expected: an action: a mapping with runs)"]),
        ("runs: x\n", ["action.yml (Line: 1, Col: 7): Unexpected value 'x' (expected: what the action runs)"]),
        (runs("main: x"), ["action.yml (Line: 3, Col: 3): Required property is missing: using"]),
        (runs("using: node20"), ["action.yml (Line: 3, Col: 3): Required property is missing: main"]),
        (runs("using: docker"), ["action.yml (Line: 3, Col: 3): Required property is missing: image"]),
        (runs("using: composite"), ["action.yml (Line: 3, Col: 3): Required property is missing: steps"]),
        (
            runs("using: node10\nmain: x"),
            [
                ("action.yml (Line: 3, Col: 10): 'using: node10' is not supported, use 'composite', 'docker', 'node12', "
                "'node16', 'node20' or 'node24' instead. (expected: one of composite, docker, node12, node16, node20, node24)")
            ],
        ),
        (
            runs("using: composite\nsteps:\n  - run: x\n  - uses: checkout\n  - run: y\n    shell: bash\n    id: 1a"),
            [
                "action.yml (Line: 5, Col: 7): Required property is missing: shell",
                ("action.yml (Line: 6, Col: 13): Expected format {org}/{repo}[/path]@ref. Actual 'checkout' "
                "(expected: an action with its version, as actions/checkout@v4)"),
                ("action.yml (Line: 9, Col: 11): The identifier '1a' is invalid. IDs may only contain alphanumeric characters, "
                "'_', and '-'. IDs must start with a letter or '_' and must be less than 100 characters."),
            ],
        ),
        (
            runs("using: composite\nsteps:\n  - run: ${{ secrets.X }}\n    shell: bash\n    timeout-minutes: 3"),
            [
                ("action.yml (Line: 5, Col: 12): Unrecognized named-value: 'secrets'. Located at position 1 within expression: "
                "secrets.X (expected: one of the contexts allowed here: env, github, inputs, job, matrix, runner, steps, strategy; "
                "texts are in single quotes)"),
                ("action.yml (Line: 7, Col: 7): Unexpected value 'timeout-minutes' (expected: one of continue-on-error, env, id, if, "
                "name, run, shell, working-directory)"),
            ],
        ),
        (
            runs("using: composite\nsteps:\n  - run: x\n    shell: sh\n    background: true\n  - wait: x"),
            [
                ("action.yml (Line: 7, Col: 7): Unexpected value 'background' (expected: one of continue-on-error, env, id, if, "
                "name, run, shell, working-directory)"),
                "action.yml (Line: 8, Col: 7): Unexpected value 'wait' (expected: 'with'?)",
                ("action.yml (Line: 8, Col: 7): There's not enough info to determine what you meant. Add one of these properties: "
                "run, shell, uses, with, working-directory"),
            ],
        ),
        (
            runs("using: node20\nmain: ''\nsteps: []"),
            [
                "action.yml (Line: 4, Col: 9): Unexpected value '' (expected: a file of the action)",
                "action.yml (Line: 5, Col: 3): Unexpected value 'steps' (expected: one of main, post, post-if, pre, pre-if, using)",
            ],
        ),
        (
            "inputs: {a: {default: [1]}, A: {}}\n" + runs("using: docker\nimage: x\nargs: ${{ fromJSON('[]') }}"),
            [
                "action.yml (Line: 1, Col: 23): A sequence was not expected (expected: a text)",
                "action.yml (Line: 1, Col: 29): 'A' is already defined (expected: each key once)",
                "action.yml (Line: 6, Col: 9): A template expression is not allowed in this context (expected: a sequence of texts)",
            ],
        ),
    ],
)  # fmt: skip
def test_mistakes(text, expected):
    assert errors_of(text) == expected


def test_a_condition_that_is_no_condition_is_warned_of():
    action = read_action_file(runs("using: node20\nmain: m.js\npre-if: x ${{ false }}"), "action.yml")
    assert ["always true" in str(problem) for problem in action.warnings] == [True]


def test_an_image_is_a_name_or_a_dockerfile():
    text = "name: x\ndescription: d\nruns: {{using: docker, image: {}}}\n"
    for image in ("docker://alpine:3", "Dockerfile", "images/tool.dockerfile"):
        action = read_action_file(text.format(image), "action.yml")
        assert (action.runs.image, action.warnings) == (image, ())
