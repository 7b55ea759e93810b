"""A matrix into its combinations: the product of the vectors, less `exclude`, plus `include`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from firebrick.workflow.expression import EvaluationError, Scope
from firebrick.workflow.template import Template, TemplateTree
from firebrick.workflow.value import Value, equals, is_array, is_primitive, to_text

MAX_JOBS = 256
Combination = dict[str, Value]


def tree_value(tree: TemplateTree, scope: Scope) -> Value:
    """A tree of templates, evaluated. Raises EvaluationError."""
    if isinstance(tree, Template):
        return tree.value(scope)
    if isinstance(tree, Mapping):
        return {name: tree_value(item, scope) for name, item in tree.items()}
    return [tree_value(item, scope) for item in tree]


def expand_matrix(matrix: Value) -> tuple[Combination, ...]:
    """The combinations of a matrix, in the order their jobs have. Raises EvaluationError for what is no matrix, an empty one, and one of
    more than 256 jobs."""
    if not isinstance(matrix, Mapping):
        raise EvaluationError("Expected a mapping")
    vectors = {name: _vector(name, values) for name, values in matrix.items() if name not in {"include", "exclude"}}
    include, exclude = _entries(matrix.get("include")), _entries(matrix.get("exclude"))
    if not vectors and not include:
        raise EvaluationError("Matrix must define at least one vector")
    original = _product(vectors, exclude) if vectors else []
    if len(original) > MAX_JOBS:
        raise _too_many()
    combinations = _included(original, include)
    if not combinations:
        raise EvaluationError("Matrix excludes every combination it has")
    if len(combinations) > MAX_JOBS:
        raise _too_many()
    return tuple(combinations)


def _too_many() -> EvaluationError:
    return EvaluationError(f"The maximum number of jobs a matrix may have ({MAX_JOBS}) was exceeded")


def _vector(name: str, values: Value) -> Sequence[Value]:
    if not isinstance(values, Sequence) or not is_array(values):
        raise EvaluationError(f"Expected a sequence for the matrix vector '{name}'")
    if not values:
        raise EvaluationError(f"Matrix vector '{name}' does not contain any values")
    return values


def _entries(value: Value) -> list[Mapping[str, Value]]:
    if value is None:
        return []
    if not isinstance(value, Sequence) or not is_array(value):
        raise EvaluationError("Expected a sequence")
    if len(value) > _MAX_ENTRIES:
        raise EvaluationError(f"A matrix may have at most {_MAX_ENTRIES} entries in `include` and in `exclude`")
    entries = [entry for entry in value if isinstance(entry, Mapping)]
    if len(entries) != len(value):
        raise EvaluationError("Expected a mapping")
    return entries


# A product is looked at up to this size: `exclude` may leave few of many.
_MAX_PRODUCT = 4_096
_MAX_ENTRIES = 512


def _product(vectors: Mapping[str, Sequence[Value]], exclude: Sequence[Mapping[str, Value]]) -> list[Combination]:
    """Every combination that no entry of `exclude` matches; the last vector changes fastest."""
    size = 1
    for values in vectors.values():
        size *= len(values)
        if size > _MAX_PRODUCT:
            raise _too_many()
    combinations = (dict(zip(vectors, values, strict=True)) for values in itertools.product(*vectors.values()))
    return [each for each in combinations if not any(_excludes(entry, each) for entry in exclude)]


def _excludes(entry: Mapping[str, Value], combination: Combination) -> bool:
    return all(name in combination and same(value, combination[name]) for name, value in entry.items())


def same(left: Value, right: Value) -> bool:
    """Equal as in expressions, arrays and objects element by element."""
    if is_primitive(left) or is_primitive(right):
        return equals(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, Sequence) and isinstance(right, Sequence):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    return False


def _included(original: Sequence[Combination], include: Sequence[Mapping[str, Value]]) -> list[Combination]:
    """An entry goes into every original combination of which it changes no value of a vector; one that goes into none is a combination
    of its own, to which later entries add nothing."""
    extended = [dict(each) for each in original]
    added: list[Combination] = []
    for entry in include:
        fits = False
        for vectors, combination in zip(original, extended, strict=True):
            if all(same(value, vectors[name]) for name, value in entry.items() if name in vectors):
                combination.update(entry)
                fits = True
        if not fits:
            added.append(dict(entry))
    return extended + added


def matrix_suffix(combination: Mapping[str, Value]) -> str:
    """`(v1, v2)`: the scalars of a combination, as the names of its jobs end."""
    texts = [text for value in combination.values() for text in _scalars(value) if text]
    return f"({', '.join(texts)})" if texts else ""


def _scalars(value: Value) -> list[str]:
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _scalars(item)]
    if isinstance(value, Sequence) and is_array(value):
        return [text for item in value for text in _scalars(item)]
    return [to_text(value)]
