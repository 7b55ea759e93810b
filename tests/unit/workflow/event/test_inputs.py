import pytest

from firebrick.workflow.event.inputs import Input, InputError, call_inputs, dispatch_inputs, read_inputs
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow

DECLARED = (
    Input(name="level", type="choice", options=("info", "debug"), default="info"),
    Input(name="deep", type="boolean"),
    Input(name="count", type="number", default=3.0),
    Input(name="note"),
    Input(name="place", type="environment", required=True),
)


def test_what_a_file_declares():
    workflow = read_workflow(
        """
on:
  workflow_dispatch:
    inputs:
      level: {type: choice, options: [info, 2], default: info, description: How much}
      plain:
      deep: {type: boolean, required: true, default: true}
jobs: {a: {runs-on: x, steps: [run: x]}}
""",
        "ci.yml",
    )
    assert read_inputs(workflow.on["workflow_dispatch"]) == (
        Input(name="level", type="choice", options=("info", "2"), default="info", description="How much"),
        Input(name="plain"),
        Input(name="deep", type="boolean", required=True, default=True),
    )
    assert read_inputs(None) == ()


def test_a_dispatch_gets_types_and_texts():
    given = dispatch_inputs(DECLARED, {"Level": "debug", "deep": "true", "count": "1.50", "place": "prod"})
    assert given.typed == {"level": "debug", "deep": True, "count": 1.5, "note": "", "place": "prod"}
    assert given.texts == {"level": "debug", "deep": "true", "count": "1.5", "note": "", "place": "prod"}


def test_what_is_not_given_has_its_default():
    given = dispatch_inputs(DECLARED, {"place": "prod"})
    assert given.typed == {"level": "info", "deep": False, "count": 3, "note": "", "place": "prod"}
    assert given.texts["deep"] == "false"
    assert dispatch_inputs([Input(name="n", type="number")], {}).typed == {"n": 0}
    assert dispatch_inputs([Input(name="n", required=True, default="d")], {}).typed == {"n": "d"}


def test_all_mistakes_of_a_dispatch_at_once():
    with pytest.raises(InputError) as raised:
        dispatch_inputs(
            DECLARED, {"level": "loud", "deep": "yes", "count": "many", "other": "x", "more": 1, "note": []}
        )
    assert raised.value.mistakes == (
        'Unexpected inputs provided: ["other", "more"]',
        "Provided value 'loud' for input 'level' not in the list of allowed values",
        "Provided value 'yes' for input 'deep' is not a boolean",
        "Provided value 'many' for input 'count' is not a number",
        "Provided value 'list' for input 'note' is not a string",
        "Required input 'place' not provided",
    )
    assert raised.value.hint.startswith("The workflow takes level (choice: info or debug), deep (boolean), count")


@pytest.mark.parametrize(
    ("one", "value", "typed"),
    [
        (Input(name="x"), 5, "5"),
        (Input(name="x"), True, "true"),
        (Input(name="x", type="boolean"), "TRUE", True),
        (Input(name="x", type="boolean"), False, False),
        (Input(name="x", type="boolean"), "", False),
        (Input(name="x", type="number"), 7, 7),
        (Input(name="x", type="number"), "0x10", 16),
        (Input(name="x", type="number"), "", 0),
        (Input(name="x", type="choice", options=("1",)), 1, "1"),
    ],
)
def test_values_of_a_dispatch(one, value, typed):
    assert dispatch_inputs([one], {"x": value}).typed == {"x": typed}


@pytest.mark.parametrize(
    ("one", "value"),
    [
        (Input(name="x", type="boolean"), "1"),
        (Input(name="x", type="number"), True),
        (Input(name="x", type="number"), "NaN"),
        (Input(name="x", type="choice", options=("a",)), "A"),
        (Input(name="x", required=True), ""),
        (Input(name="x"), "y" * 70_000),
    ],
)
def test_values_no_dispatch_takes(one, value):
    with pytest.raises(InputError) as raised:
        dispatch_inputs([one], {"x": value})
    assert all(len(mistake) < 250 for mistake in raised.value.mistakes)


SCOPE = Scope({"github": {"ref": "refs/heads/main"}, "vars": {"DEEP": True}})
CALL = (Input(name="s"), Input(name="b", type="boolean"), Input(name="n", type="number"), Input(name="d", default="x"))


def test_inputs_of_a_call():
    assert call_inputs(CALL, {}, SCOPE) == {"s": "", "b": False, "n": 0, "d": "x"}
    assert call_inputs(CALL, {"S": 1.5, "b": True, "n": 2.0, "d": None}, SCOPE) == {
        "s": "1.5",
        "b": True,
        "n": 2,
        "d": "x",
    }


def test_all_mistakes_of_a_call_at_once():
    declared = (*CALL, Input(name="r", required=True))
    with pytest.raises(InputError) as raised:
        call_inputs(declared, {"z": 1, "b": "true", "n": "2", "s": []}, SCOPE)
    assert raised.value.mistakes == (
        "Invalid input, z is not defined in the referenced workflow.",
        "Input r is required, but not provided while calling.",
        "Unexpected value 'list' for the input 's', which is a string",
        "Unexpected value 'true' for the input 'b', which is a boolean",
        "Unexpected value '2' for the input 'n', which is a number",
    )


def test_defaults_of_a_call_have_types_and_may_be_expressions():
    workflow = read_workflow(
        """
on:
  workflow_call:
    inputs:
      b: {type: boolean, default: true}
      n: {type: number, default: 2}
      s: {type: string, default: 3}
      ref: {type: string, default: 'on ${{ github.ref }}'}
      deep: {type: boolean, default: '${{ vars.DEEP }}'}
      none: {type: number, default: '${{ vars.NONE }}'}
      bad: {type: number, default: '${{ github.ref }}'}
jobs: {a: {runs-on: x, steps: [run: x]}}
""",
        "ci.yml",
    )
    declared = read_inputs(workflow.on["workflow_call"])
    assert call_inputs(declared, {"bad": 1.0}, SCOPE) == {
        "b": True,
        "n": 2,
        "s": "3",
        "ref": "on refs/heads/main",
        "deep": True,
        "none": 0,
        "bad": 1,
    }
    with pytest.raises(InputError, match="'bad', which is a number"):
        call_inputs(declared, {}, SCOPE)


def test_a_dispatch_has_twenty_five_inputs_and_no_more():
    text = "on: {{workflow_dispatch: {{inputs: {{{}}}}}}}\njobs: {{a: {{runs-on: x, steps: [run: x]}}}}\n"
    names = ", ".join(f"i{index}:" for index in range(25))
    assert len(read_inputs(read_workflow(text.format(names), "ci.yml").on["workflow_dispatch"])) == 25
    with pytest.raises(WorkflowError, match="up to 25 `inputs`"):
        read_workflow(text.format(names + ", more:"), "ci.yml")
