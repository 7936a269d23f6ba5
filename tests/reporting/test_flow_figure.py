"""The figure of movement: well-formed SVG whose bands have the right widths and titles."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest

from segmentation.reporting.flow_figure import draw_flows

SVG = "{http://www.w3.org/2000/svg}"


def test_bands_and_bars() -> None:
    flows = np.array([[60, 20], [0, 20]])
    text = draw_flows(flows, ("<Quiet>", "Loud"), "Who moved & where")
    root = ET.fromstring(text)
    assert root.attrib["aria-label"] == "Who moved & where"
    titles = [path.find("title").text for path in root.iter("path")]
    assert titles == ["<Quiet> → <Quiet>: 60", "<Quiet> → Loud: 20", "Loud → Loud: 20"]
    heights = [float(rect.attrib["height"]) for rect in root.iter("rect")]
    left, right = heights[:2], heights[2:]
    assert left[0] / left[1] == pytest.approx(4, rel=0.01)
    assert right[0] / right[1] == pytest.approx(1.5, rel=0.01)
    assert [node.text for node in root.iter("text")] == ["0 <Quiet>", "1 Loud"] * 2


def test_names_of_thin_bars_do_not_cover_each_other() -> None:
    root = ET.fromstring(draw_flows(np.diag([1000, 1, 1, 1]), ("A", "B", "C", "D"), "Moves"))
    places = [float(node.attrib["y"]) for node in root.iter("text")][:4]
    assert min(np.diff(places)) >= 16
