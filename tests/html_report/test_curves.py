"""Charts show what was logged."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mlcl_cli.html_report.curves import INK, MAX_MARKED, RULE, Line, Panel, draw_moves, draw_panel, logged_line

VALUES = [3.5, 1.25, 2.0, 0.5, 0.75]


def vertices(svg: str, name: str) -> np.ndarray:
    (path,) = re.findall(rf'<g id="{name}">\s*<path d="([^"]*)"', svg)
    return np.array([[float(one) for one in pair] for pair in re.findall(r"[ML] ([\d.e+-]+) ([\d.e+-]+)", path)])


@pytest.mark.parametrize("count", [5, 1000])
def test_every_value_is_a_vertex_at_its_place(count: int) -> None:
    epochs = list(range(1, count + 1))
    values = [VALUES[epoch % 5] + epoch / count for epoch in epochs]
    panel = Panel("loss", "Loss", "loss", [Line("a", epochs, values), Line("b", epochs, values[::-1])], best=3)
    svg = draw_panel(panel)
    for number, own in enumerate((values, values[::-1])):
        points = vertices(svg, f"loss-line-{number}")
        assert len(points) == count
        for axis, expected in ((0, epochs), (1, own)):
            slope, offset = np.polyfit(expected, points[:, axis], 1)
            assert np.allclose(slope * np.array(expected) + offset, points[:, axis], atol=1e-3)
            assert (slope < 0) == (axis == 1), "a page's y grows downwards"
    assert ("<use" in svg.split("loss-line-0")[1].split("loss-line-1")[0]) == (count <= MAX_MARKED)


def test_a_chart_is_well_formed_and_takes_its_colors_from_the_page() -> None:
    svg = draw_panel(Panel("run-3-x", 'a "title" <&>', "u", [Line("one", [1, 2], [1.0, 2.0])], best=1))
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert root.attrib["aria-label"] == 'a "title" <&>: one from 1 in epoch 1 to 2 in epoch 2'
    assert "var(--series-0)" in svg
    assert "var(--ink)" in svg
    assert "var(--rule)" in svg
    assert INK not in svg
    assert RULE not in svg
    assert not re.search(r"#0a0b|http://(?!www.w3.org)|font-family|<metadata", svg)


def test_many_lines_leave_room_for_the_chart_and_labels_are_not_math() -> None:
    lines = [Line(f"run_{number} $x^2$", [1, 2], [1.0, 2.0]) for number in range(30)]
    svg = draw_panel(Panel("many", "t", "u", lines))
    points = vertices(svg, "many-line-29")
    assert np.ptp(points[:, 1]) > 80
    assert svg.count("$x^2$") == 30 + svg.split(">")[0].count("$x^2$")


def test_identifiers_differ_between_charts() -> None:
    line = Line("one", [1, 2], [1.0, 2.0])
    ids = [re.findall(r' id="([^"]*)"', draw_panel(Panel(name, "t", "u", [line]))) for name in ("a", "b")]
    assert len({*ids[0], *ids[1]}) == len(ids[0]) + len(ids[1])


def test_moves_are_counted_by_powers_of_two() -> None:
    svg = draw_moves("moves", [1, 4, 4, 100, 7], [1, 2, 2, 3, 800])
    assert 'aria-label="3 targets moved up by a power of two or more, 1 down"' in svg


def test_a_line_has_only_the_logged_epochs() -> None:
    rows = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "recall": 5.0}]
    assert logged_line(rows, "recall", "R") == Line("R", [2], [5.0])
    assert logged_line(rows, "nothing", "x") is None
