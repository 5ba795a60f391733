from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from backend.simulate import charts
from backend.simulate.charts import Line


def line(name: str, *values: float) -> Line:
    y = np.array(values)
    x = 60 + 10 * np.arange(len(values), dtype=np.float64)
    return Line(name, "#123456", x, y, y - 0.05, y + 0.05)


@pytest.mark.parametrize("values", [(0.2, 0.4, 0.5), (0.3,), (0.0, 0.0), (1.0, 1.0)])
def test_a_chart_is_an_svg_with_every_point_on_the_canvas(values: tuple[float, ...]) -> None:
    root = ElementTree.fromstring(charts.line_chart([line("a & b", *values)], "labeled images", "mAP50"))
    circles = list(root.iter("circle"))
    assert len(circles) == len(values)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert all(0 <= float(circle.attrib["cx"]) <= width for circle in circles)
    assert all(0 <= float(circle.attrib["cy"]) <= height for circle in circles)
    titles = [circle.findtext("title") for circle in circles]
    assert titles[0] == f"a & b: {values[0]:.3f} at 60"
    heights = [-float(circle.attrib["cy"]) for circle in circles]
    assert np.argsort(heights, kind="stable").tolist() == np.argsort(values, kind="stable").tolist()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (60, 61), (0, 1e-6), (10, 100_000), (0, 0)])
def test_ticks_are_few_and_within(low: float, high: float) -> None:
    ticks = charts.ticks(low, high)
    assert len(ticks) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
