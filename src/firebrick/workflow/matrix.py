"""A matrix into its combinations: the product of the vectors, less `exclude`, plus `include`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.expression.function import MAX_TOGETHER, Budget
from firebrick.workflow.expression.value import Value, equals, find_property, is_array, to_text
from firebrick.workflow.template import Template, TemplateTree

MAX_JOBS = 256
# Longer than the name of a job may be, which is cut.
_MAX_SUFFIX = 1024


@dataclass(frozen=True, slots=True)
class Combination:
    """One of a matrix: its `own` values (of the vectors, or of an entry of `include` that fits nowhere), and what entries of `include` have
    `added` to them, which the name of its job does not show."""

    own: Mapping[str, Value]
    added: Mapping[str, Value] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Value]:
        return {**self.own, **self.added}

    @property
    def suffix(self) -> str:
        """`(v1, v2)`: its own scalars, as the name of its job ends; empty where there are none. Values may be long, and each combination has them
        anew: what no name has room for is left out."""
        shown: list[str] = []
        room = _MAX_SUFFIX
        for text in (text for value in self.own.values() for text in _scalars(value) if text):
            shown.append(text[:_MAX_SUFFIX])
            room -= len(shown[-1])
            if room <= 0:
                break
        return f"({', '.join(shown)})" if shown else ""


def tree_value(tree: TemplateTree, scope: Scope, budget: Budget | None = None) -> Value:
    """A tree of templates, evaluated. Raises EvaluationError."""
    budget = budget or Budget(MAX_TOGETHER)
    if isinstance(tree, Template):
        return tree.value(scope, budget)
    if isinstance(tree, Mapping):
        return {name: tree_value(item, scope, budget) for name, item in tree.items()}
    return [tree_value(item, scope, budget) for item in tree]


def expand_matrix(matrix: Value) -> tuple[Combination, ...]:
    """The combinations of a matrix, in the order their jobs have. Raises EvaluationError for what is no matrix, an empty one, and one of
    more than 256 jobs."""
    vectors, include, exclude = _parts(matrix)
    original = _product(vectors, exclude) if vectors else []
    if len(original) > MAX_JOBS:
        raise _too_many()
    combinations = _included(vectors, original, include)
    if not combinations:
        raise EvaluationError("Matrix excludes every combination it has")
    if len(combinations) > MAX_JOBS:
        raise _too_many()
    return tuple(combinations)


def check_matrix(matrix: Value) -> None:
    """What can be said of a matrix without making its combinations. Raises EvaluationError."""
    vectors, _, exclude = _parts(matrix)
    if not exclude and math.prod(map(len, vectors.values())) > MAX_JOBS:
        raise _too_many()


def _parts(matrix: Value) -> tuple[dict[str, Sequence[Value]], list[Mapping[str, Value]], list[Mapping[str, Value]]]:
    """The vectors, the entries of `include` and those of `exclude`. Raises EvaluationError."""
    if not isinstance(matrix, Mapping):
        raise EvaluationError("Expected a mapping")
    vectors = {name: _vector(name, values) for name, values in matrix.items() if name not in {"include", "exclude"}}
    include, exclude = _entries(matrix.get("include")), _entries(matrix.get("exclude"))
    if not vectors and not include:
        raise EvaluationError("Matrix must define at least one vector")
    _check_entries(vectors, include, exclude)
    return vectors, include, exclude


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


def _check_entries(
    vectors: Mapping[str, Value], include: Sequence[Mapping[str, Value]], exclude: Sequence[Mapping[str, Value]]
) -> None:
    if not all(include):
        raise EvaluationError("Matrix include mapping does not contain any values")
    if not all(exclude):
        raise EvaluationError("Matrix exclude filter must not be empty")
    for name in (name for entry in exclude for name in entry):
        if not find_property(vectors, name)[0]:
            raise EvaluationError(f"Matrix exclude key '{name}' does not match any key within the matrix")


# A product is looked at up to this size: `exclude` may leave few of many.
_MAX_PRODUCT = 4_096
_MAX_ENTRIES = 512
_MAX_COMPARED = 4_000_000


def _check_work(entries: Sequence[Mapping[str, Value]], combinations: int) -> None:
    """Every value of the entries may be compared with every combination; who writes them may mean harm."""
    if combinations * sum(map(_count, entries)) > _MAX_COMPARED:
        raise EvaluationError("The matrix has too many values in `include` or `exclude` for so many combinations")


def _count(value: Value) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, Sequence) and is_array(value) else 1


def _product(vectors: Mapping[str, Sequence[Value]], exclude: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
    """Every combination that no entry of `exclude` matches; the last vector changes fastest."""
    size = 1
    for values in vectors.values():
        size *= len(values)
        if size > _MAX_PRODUCT:
            raise _too_many()
    _check_work(exclude, size)
    combinations = (dict(zip(vectors, values, strict=True)) for values in itertools.product(*vectors.values()))
    return [each for each in combinations if not any(matches(entry, each) for entry in exclude)]


def matches(pattern: Value, value: Value) -> bool:
    """Whether every scalar within `pattern` is equal, as in expressions, to what is at its place in `value`, which is null where nothing
    is: a pattern may be a part of what it matches."""
    if isinstance(pattern, Mapping):
        return all(matches(item, _at_name(value, name)) for name, item in pattern.items())
    if isinstance(pattern, Sequence) and is_array(pattern):
        return all(matches(item, _at_index(value, index)) for index, item in enumerate(pattern))
    return equals(pattern, value)


def _at_name(value: Value, name: str) -> Value:
    return find_property(value, name)[1] if isinstance(value, Mapping) else None


def _at_index(value: Value, index: int) -> Value:
    is_there = isinstance(value, Sequence) and is_array(value) and index < len(value)
    return value[index] if is_there else None  # type: ignore[index]  # a sequence, where it is there


def _included(
    vectors: Mapping[str, Value], original: Sequence[Mapping[str, Value]], include: Sequence[Mapping[str, Value]]
) -> list[Combination]:
    """An entry adds to every original combination that has the values it has for vectors; one that fits none is a combination of its own,
    to which later entries add nothing."""
    _check_work(include, len(original))
    added: list[dict[str, Value]] = [{} for _ in original]
    separate: list[Combination] = []
    for entry in include:
        filters = {name: value for name, value in entry.items() if find_property(vectors, name)[0]}
        rest = {name: value for name, value in entry.items() if name not in filters}
        fits = [index for index, combination in enumerate(original) if matches(filters, combination)]
        for index in fits:
            added[index].update(rest)
        if not fits:
            separate.append(Combination({**filters, **rest}))
    return [*(Combination(own, extra) for own, extra in zip(original, added, strict=True)), *separate]


def _scalars(value: Value) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _scalars(item)
    elif isinstance(value, Sequence) and is_array(value):
        for item in value:
            yield from _scalars(item)
    else:
        yield to_text(value)
