"""The picture of a workflow's needs: where its jobs stand, and what is written of them."""

import itertools
import re
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from firebrick.workflow.diagram import draw
from firebrick.workflow.layout import lay_out
from firebrick.workflow.reader import read_workflow

SVG = "{http://www.w3.org/2000/svg}"
SIZE = (100.0, 40.0)


def layout(**needs: list[str]):
    return lay_out(dict.fromkeys(needs, SIZE), needs)


def picture(jobs: str, name: str = "W"):
    text = f"name: {name}\non: push\njobs:\n" + "".join(f"  {line}\n" for line in jobs.strip().split("\n"))
    drawn = draw(read_workflow(text, "f.yml"))
    return drawn, ElementTree.fromstring(drawn)


def texts(root) -> list[str]:
    return [element.text for element in root.iter(f"{SVG}text")]


def test_a_job_is_right_of_all_it_needs():
    found = layout(c=["a", "b"], a=[], b=["a"], d=["c"])
    assert [name for name, _ in sorted(found.boxes.items(), key=lambda item: item[1].x)] == ["a", "b", "c", "d"]


def test_a_need_that_follows_from_others_is_not_drawn():
    assert {(line.source, line.target) for line in layout(a=[], b=["a"], c=["b", "a"]).lines} == {
        ("a", "b"),
        ("b", "c"),
    }


def test_a_line_that_passes_a_column_has_a_place_in_it():
    found = layout(a=[], b=["a"], c=["b"], d=["c"], e=[], f=["d", "e"])
    [long] = [line for line in found.lines if line.source == "e"]
    assert len(long.places) == 5
    for lane, box in itertools.product(long.places[1:-1], found.boxes.values()):
        assert lane.x != box.x or lane.y + lane.height <= box.y or box.y + box.height <= lane.y


def test_lines_do_not_cross_where_they_need_not():
    found = layout(a=[], b=[], c=[], x=["c"], y=["b"], z=["a"])
    order = sorted(found.boxes, key=lambda name: (found.boxes[name].x, found.boxes[name].y))
    assert {("a", "z"), ("b", "y"), ("c", "x")} == {*zip(order[:3], order[3:], strict=True)}


def test_very_many_lines_go_straight():
    chain = {f"j{index}": [f"j{index - 1}"] if index else [] for index in range(60)}
    far = {f"k{index}": [] for index in range(60)}
    found = layout(**chain, **far, last=["j59", *far])
    assert all(len(line.places) == 2 for line in found.lines)


needs = st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=12).map(
    lambda rows: {
        f"j{row}": sorted({f"j{need % row}" for need in wanted}) if row else [] for row, wanted in enumerate(rows)
    }
)


@given(needs)
@settings(deadline=None, derandomize=True)
def test_no_box_lies_on_another(graph):
    found = layout(**graph)
    for one, other in itertools.combinations(found.boxes.values(), 2):
        assert (
            one.x + one.width <= other.x
            or other.x + other.width <= one.x
            or one.y + one.height <= other.y
            or other.y + other.height <= one.y
        )
    for box in found.boxes.values():
        assert 0 <= box.x <= box.x + box.width <= found.width
        assert -0.01 <= box.y <= box.y + box.height <= found.height + 0.01
    for line in found.lines:
        assert line.places[0].x + line.places[0].width < line.places[-1].x


def test_what_is_written_of_a_job():
    _, root = picture(
        """
a: {runs-on: x, steps: [run: x], strategy: {matrix: {v: [1, 2, 3], exclude: [{v: 2}]}}}
b: {name: "Build ${{ github.ref }}", runs-on: x, steps: [run: x], needs: a}
c: {name: Ship it, runs-on: x, steps: [run: x], strategy: {matrix: "${{ fromJSON(vars.m) }}"}}
d: {name: ' ', runs-on: x, steps: [run: x], strategy: {matrix: {v: [1]}}}
"""
    )
    assert texts(root) == ["a", "2 jobs", "b", "Ship it", "a matrix", "d", "1 job"]
    assert len([path for path in root.iter(f"{SVG}path") if path.get("marker-end")]) == 1


def test_a_condition_is_seen_and_said():
    _, root = picture("a: {runs-on: x, steps: [run: x], if: github.ref == 'x'}\nb: {runs-on: x, steps: [run: x]}")
    assert [rect.get("class") for rect in root.iter(f"{SVG}rect")] == ["ground", "box sometimes", "box"]
    assert [title.text for title in root.iter(f"{SVG}title")] == ["W", "a: a\nif: github.ref == 'x'", "b: b"]


def test_names_are_text_and_nothing_else():
    drawn, root = picture(
        r'a: {name: "<script>\"&\u001b[31m' + "x" * 100 + r'", runs-on: x, steps: [run: x]}', '"</title>&"'
    )
    [title] = texts(root)
    assert title.startswith('<script>"&\N{REPLACEMENT CHARACTER}[31mx')
    assert len(title) == 36
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    assert root.find(f"{SVG}title").text == "</title>&"


def test_it_is_light_and_dark():
    drawn, root = picture("a: {runs-on: x, steps: [run: x]}")
    assert "prefers-color-scheme: dark" in drawn
    assert re.fullmatch(r"0 0 \d+ \d+", root.get("viewBox"))
